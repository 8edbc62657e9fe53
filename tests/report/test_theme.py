"""Contrasts of the page's colours in light and dark, and SVG with them."""

import pytest

from tove_lvlm.report.theme import DARK, GRAPHIC, LIGHT, TEXT, contrast, readable, themed, variable, variables
from tove_lvlm.viz import palette
from tove_lvlm.viz.style import new_figure, svg_text

COLORS = {*palette.EXPERTS.values(), *palette.MODELS.values(), *palette.FURTHER}


def test_contrast_is_wcags():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the well-known grey that just fails AA
    assert contrast("#123456", "#123456") == 1


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_texts_and_lines_can_be_read(theme):
    assert LIGHT.keys() == DARK.keys()
    for role in ("ink", "soft", "link", "right", "wrong"):
        assert contrast(theme[role], theme["paper"]) >= TEXT, role
    assert contrast(theme["ink"], theme["mark"]) >= TEXT
    for color in COLORS:
        assert contrast(readable(color, theme["paper"], GRAPHIC), theme["paper"]) >= GRAPHIC, color


def test_a_colour_that_can_be_read_stays_as_it_is():
    assert readable("#0072b2", "#ffffff", GRAPHIC) == "#0072b2"
    assert readable("#ddcc77", "#ffffff", GRAPHIC) != "#ddcc77"


def plot():
    figure = new_figure(3, 2)
    axes = figure.subplots()
    axes.plot([1, 2], [1, 2], color="#0072b2")
    axes.set_title("<b>&", parse_math=False)
    return figure


def test_a_figure_takes_the_pages_colours_and_has_ids_of_its_own():
    text = svg_text(plot())
    assert text == svg_text(plot())
    first, colors = themed(text, 1)
    second, _ = themed(text, 2)
    assert first.startswith('<svg viewBox="0 0 ')
    assert "var(--c0072b2)" in first
    assert "#0072b2" not in first
    assert "var(--paper)" in first
    assert "#0072b2" in colors
    assert "&lt;b&gt;&amp;" in first
    assert "http" not in first
    ids = [{part.partition('"')[0] for part in svg.split(' id="')[1:]} for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    used = {part.partition(")")[0] for part in first.split("url(#")[1:]}
    used |= {part.partition('"')[0] for part in first.split('href="#')[1:]}
    assert used <= ids[0]


def test_every_colour_has_a_value_in_both_themes():
    for theme in (LIGHT, DARK):
        css = variables(theme, ["#0072b2", palette.INK])
        assert f"--paper: {theme['paper']};" in css
        assert f"--c0072b2: {readable('#0072b2', theme['paper'], GRAPHIC)};" in css
        assert variable(palette.INK) == "var(--ink)"
        assert palette.INK[1:] not in css.replace(f"--ink: {theme['ink']}", "")
