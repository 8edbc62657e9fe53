"""HTML out of values: every text of a file goes through `escaped`, so that none of it becomes markup.

The functions that give markup give `Html`, and take `Html` as it is and any other value as text.
"""

import html
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..viz.style import svg_text
from .theme import themed, variable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Html(str):
    """A text that is markup already."""


def escaped(value: Any) -> Html:
    """A value as text between tags or in a quoted attribute; markup is left as it is."""
    if isinstance(value, Html):
        return value
    # Half of a surrogate pair, which JSON may hold, is in no UTF-8 file.
    text = str(value).encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
    return Html(html.escape(text, quote=True))


def element(tag: str, content: Any = "", **attributes: Any) -> Html:
    """One element.

    Args:
        tag: Its name.
        content: Markup, text, or a list of both.
        attributes: A name that Python reserves ends in an underscore; underscores inside are hyphens.
    """
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"' for key, value in attributes.items())
    return Html(f"<{tag}{given}>{joined(content if isinstance(content, list) else [content])}</{tag}>")


def joined(parts: Iterable[Any], between: str = "") -> Html:
    """Parts after each other."""
    return Html(between.join(escaped(part) for part in parts))


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], label: str, marked: Iterable[int] = ()) -> Html:
    """A table that scrolls by itself where the screen is narrow; the first column names the rows.

    Args:
        head: Names of the columns.
        rows: As many cells each.
        label: Of the whole, for screen readers.
        marked: Numbers of rows that are set apart.
    """
    marked = set(marked)
    head_row = element("tr", [element("th", cell, scope="col") for cell in head])
    body = [
        element(
            "tr",
            [element("th", cells[0], scope="row"), *(element("td", cell) for cell in cells[1:])],
            **({"class_": "differs"} if number in marked else {}),
        )
        for number, cells in enumerate(rows)
    ]
    inside = element("table", [element("thead", head_row), element("tbody", body)])
    return element("div", inside, class_="scroll", role="region", aria_label=label, tabindex="0")


def section(title: str, content: Iterable[Any]) -> Html:
    """A part of the page with its heading; links reach it by `anchor`."""
    return element("section", [element("h2", title), *content], id=anchor(title))


def anchor(title: str) -> str:
    """Name of a section in links."""
    return title.lower().replace(" ", "-")


def paragraph(*parts: Any, **attributes: Any) -> Html:
    """A paragraph."""
    return element("p", list(parts), **attributes)


def swatches(colors: Mapping[str, str]) -> Html:
    """A legend: names with their colours of the plots."""
    entries = [
        element("li", [Html(f'<span class="swatch" style="background: {variable(color)}"></span>'), name])
        for name, color in colors.items()
    ]
    return element("ul", entries, class_="legend")


class Figures:
    """Turns matplotlib's figures into parts of one page.

    Attributes:
        colors: Of all figures and legends so far, which the page's styles must define.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.colors: set[str] = set()

    def add(self, figure: "Figure", title: str, about: str, below: Iterable[Any] = (), wide: bool = False) -> Html:
        """A figure with its title.

        Args:
            figure: Of matplotlib.
            title: Above it.
            about: For those who do not see it.
            below: Markup beneath.
            wide: As wide as the page.
        """
        svg, colors = themed(svg_text(figure), next(self._numbers))
        self.colors |= colors
        label = escaped(f"{title}. {about}")
        svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
        parts = [element("figcaption", title), Html(svg), *below]
        return element("figure", parts, class_="plot wide" if wide else "plot")

    def legend(self, colors: Mapping[str, str]) -> Html:
        """`swatches` whose colours the page will define."""
        self.colors |= set(colors.values())
        return swatches(colors)
