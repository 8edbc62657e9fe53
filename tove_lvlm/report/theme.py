"""The colours of a page in light and dark, and SVG that takes part in them.

Contrasts are those of WCAG 2.1: a text has at least 4.5 against the page (AA), a line or a bar at least 3.
"""

import re
from collections.abc import Iterable, Mapping

from ..viz.palette import GRID, INK, SOFT

LIGHT = {
    "paper": "#ffffff",
    "ink": INK,
    "soft": "#5c5c5c",
    "grid": GRID,
    "link": "#00527f",
    "right": "#1b6335",
    "wrong": "#99241c",
    "mark": "#fff0c2",
}
DARK = {
    "paper": "#15181c",
    "ink": "#e9e9e9",
    "soft": "#a9afb6",
    "grid": "#3a4047",
    "link": "#8ccbf2",
    "right": "#86dda5",
    "wrong": "#ffa59d",
    "mark": "#4a3c10",
}
"""Page, texts, texts of second rank, lines that only guide the eye, links, the words right and wrong, and what lies
behind values that differ."""

GRAPHIC, TEXT = 3.0, 4.5
_SVG_ROLES = {"#ffffff": "paper", INK: "ink", "#000000": "ink", SOFT: "soft", GRID: "grid"}
_COLOR = re.compile(r"#[0-9a-f]{6}\b")


def contrast(first: str, second: str) -> float:
    """Ratio of two colours' luminances, from 1 to 21.

    Args:
        first: As #rrggbb.
        second: As #rrggbb.
    """
    high, low = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def readable(color: str, paper: str, least: float) -> str:
    """The colour, moved away from the page's as little as gives it a contrast.

    Args:
        color: As #rrggbb.
        paper: What it stands on.
        least: The contrast.
    """
    target = 255 if _luminance(paper) < 0.18 else 0
    shade, percent = color, 0
    while contrast(shade, paper) < least and percent < 100:
        percent += 2
        moved = [round(channel + (target - channel) * percent / 100) for channel in _channels(color)]
        shade = "#{:02x}{:02x}{:02x}".format(*moved)
    return shade


def variable(color: str) -> str:
    """What stands for a colour of a plot in the page's styles."""
    return f"var(--{_SVG_ROLES.get(color) or _name(color)})"


def variables(theme: Mapping[str, str], colors: Iterable[str]) -> str:
    """CSS that gives all variables their values in a theme.

    Args:
        theme: `LIGHT` or `DARK`.
        colors: Of the plots, as #rrggbb.
    """
    plain = {color for color in colors if color not in _SVG_ROLES}
    values = dict(theme) | {_name(color): readable(color, theme["paper"], GRAPHIC) for color in sorted(plain)}
    return " ".join(f"--{name}: {value};" for name, value in values.items())


def themed(svg: str, number: int) -> tuple[str, set[str]]:
    """An SVG of matplotlib's for the inside of a page.

    Args:
        svg: The file's content.
        number: Of the figure on the page; its ids begin with it, since ids are the page's.

    Returns:
        The `<svg>` element, without fixed size and metadata, and the colours that the page must define.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r'<svg[^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1">', body, count=1)
    body = re.sub(r'\bid="', f'id="f{number}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>f{number}-", body)
    colors: set[str] = set()

    def named(style: re.Match[str]) -> str:
        colors.update(_COLOR.findall(style[0]))
        return _COLOR.sub(lambda color: variable(color[0]), style[0])

    body = re.sub(r'\bstyle="[^"]*"|<style[^>]*>.*?</style>', named, body, flags=re.DOTALL)
    return body, colors


def _name(color: str) -> str:
    return f"c{color[1:]}"


def _channels(color: str) -> list[int]:
    return [int(color[at : at + 2], 16) for at in (1, 3, 5)]


def _luminance(color: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _channels(color))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
