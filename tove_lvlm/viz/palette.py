"""One colour for each expert and each model in every plot, told apart by colour-blind readers too.

The first colours are Okabe and Ito's (Color Universal Design, 2008), the further ones Paul Tol's muted scheme.
"""

from collections.abc import Iterable, Mapping

INK, SOFT, GRID = "#222222", "#6b6b6b", "#e4e4e4"
"""Text and axes; text of second rank and reference lines; lines that only guide the eye."""

MODELS = {
    "clip": "#7a7a7a",
    "clip_tuned": "#b4b4b4",
    "tove": "#d55e00",
    "half": "#f2b48a",
    "lite": "#56b4e9",
    "lite_tuned": "#1f78a8",
}
"""Rows of the miniature study: the baseline and the same trained further, the whole tower, the tower without the least
useful half, and all of it merged into one CLIP, without and with re-tuning."""

EXPERTS = {"depth": "#0072b2", "normals": "#009e73", "edges": "#e69f00", "shapes": "#cc79a7"}
"""Experts that have a colour wherever they appear."""

FURTHER = ("#332288", "#882255", "#999933", "#44aa99", "#ddcc77", "#aa4499", "#117733", "#88ccee", "#cc6677")
"""For the others, in the tower's order; after the last the first comes again."""

HEAT = "viridis"
"""Colour map of one quantity, read from dark to bright."""


def expert_colors(names: Iterable[str]) -> dict[str, str]:
    """Colour of each expert, as hex.

    Args:
        names: All experts of the tower in its order, detached ones too, so that a plot of fewer has the same colours.
    """
    return _colors(names, EXPERTS)


def model_colors(names: Iterable[str]) -> dict[str, str]:
    """Colour of each model that is compared, as hex.

    Args:
        names: In the order of the plot.
    """
    return _colors(names, MODELS)


def _colors(names: Iterable[str], fixed: Mapping[str, str]) -> dict[str, str]:
    names = list(names)
    others = [name for name in names if name not in fixed]
    fresh = {name: FURTHER[index % len(FURTHER)] for index, name in enumerate(others)}
    return {name: fixed.get(name) or fresh[name] for name in names}
