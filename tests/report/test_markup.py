"""Values of files as HTML: never markup."""

import pytest

from tove_lvlm.report.markup import Figures, element, escaped, paragraph, section, table
from tove_lvlm.viz.style import new_figure

HOSTILE = "<script>alert(1)</script>\"'&"


def test_texts_are_escaped_once_and_markup_stays():
    assert escaped(HOSTILE) == "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;"
    assert escaped(escaped(HOSTILE)) == escaped(HOSTILE)
    assert element("p", ["a<b", element("b", "c>d")]) == "<p>a&lt;b<b>c&gt;d</b></p>"
    assert element("a", "x", href='#"><script>', class_="k", aria_label="l") == (
        '<a href="#&quot;&gt;&lt;script&gt;" class="k" aria-label="l">x</a>'
    )
    assert paragraph("a", 1, None) == "<p>a1None</p>"


@pytest.mark.parametrize("text", ["\ud800", "a\0b"])
def test_what_no_file_can_hold_is_replaced(text):
    escaped(text).encode("utf-8")
    assert "\0" not in escaped(text)


def test_a_table_names_rows_and_columns_and_marks_rows():
    made = table(["key", "one"], [["a", 1], ["b", 2]], "Label", marked=[1])
    assert '<th scope="col">one</th>' in made
    assert '<tr><th scope="row">a</th><td>1</td></tr><tr class="differs"><th scope="row">b</th>' in made
    assert 'role="region" aria-label="Label" tabindex="0"' in made
    assert section("Learning rates", ["<"]) == '<section id="learning-rates"><h2>Learning rates</h2>&lt;</section>'


def test_figures_are_told_and_numbered():
    figures = Figures()
    made = [figures.add(new_figure(1, 1), "loss", HOSTILE) for _ in range(2)]
    assert f'<svg role="img" aria-label="loss. {escaped(HOSTILE)}" viewBox="0 0 72 72">' in made[0]
    assert 'id="f1-' in made[0]
    assert 'id="f2-' in made[1]
    legend = figures.legend({"<b>": "#0072b2"})
    assert 'style="background: var(--c0072b2)"></span>&lt;b&gt;' in legend
    assert "#0072b2" in figures.colors
