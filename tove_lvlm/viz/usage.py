"""`tove usage` as a picture: who is asked, who is missed, and what that costs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import palette
from .style import SMALL, new_figure, save_figure, set_gaps, spread, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ASKED = {"gate_mass": "mean gate mass", "first_share": "first among the experts", "relative_norm": "strength"}
_ASKED_UNITS = {
    "gate_mass": "mean over tokens",
    "first_share": "share of tokens",
    "relative_norm": "||g e|| / ||t_clip||, mean over tokens",
}
_MISSED = {
    "score_change": "score lost without it",
    "loss_change": "loss gained without it",
    "loss_estimate": "loss gained without it (estimate)",
}
_BROUGHT = {
    "score_change": "score lost",
    "loss_change": "loss gained",
    "loss_estimate": "loss gained (estimate)",
    "relative_norm": "strength",
}
_COST = "ms"


def usage_plot(report: Mapping[str, Any], path_stem: str | Path) -> list[Path]:
    """Write `usage_figure` as SVG and PNG.

    Args:
        report: As for `usage_figure`.
        path_stem: Path without the ending.

    Returns:
        The files.
    """
    return save_figure(usage_figure(report), path_stem)


def usage_figure(report: Mapping[str, Any]) -> "Figure":
    """Bars by expert of how much it is asked and missed, and what it brings against what it costs.

    Args:
        report: `experts`: name -> `gate_mass`, `first_share`, `relative_norm`, `score_change`, `loss_change` (what
            changes when it alone is detached; None where it was not measured), `ms`, and perhaps `loss_estimate` and
            `detached`. Detached experts are left out.

    Raises:
        ValueError: Every expert is detached.
    """
    colors = palette.expert_colors(report["experts"])
    experts = {name: row for name, row in report["experts"].items() if not row.get("detached")}
    if not experts:
        raise ValueError("every expert is detached; there is nothing to plot")
    missed = [key for key in _MISSED if any(_is_number(row.get(key)) for row in experts.values())]
    height = 0.75 + 0.3 * len(experts)
    figure = new_figure(8, height + max(height, 2.2))
    set_gaps(figure, wspace=0.04, hspace=0.06)
    grid = figure.add_gridspec(2, 6, height_ratios=[height, max(height, 2.2)])
    for index, (key, title) in enumerate(_ASKED.items()):
        axes = figure.add_subplot(grid[0, 2 * index : 2 * index + 2])
        _bars(axes, {name: row.get(key) for name, row in experts.items()}, colors, title, names=index == 0)
        axes.set_xlabel(_ASKED_UNITS[key])
        if key == "gate_mass":
            axes.axvline(1 / len(experts), color=palette.SOFT, linewidth=1, linestyle=(0, (2, 2)), zorder=0.5)
            axes.annotate("even", (1 / len(experts), 1), xycoords=("data", "axes fraction"), fontsize=SMALL - 1,
                          color=palette.SOFT, ha="center", va="bottom")  # fmt: skip
    for index, key in enumerate(missed):
        axes = figure.add_subplot(grid[1, 2 * index : 2 * index + 2])
        gain = {name: _worth(key, row.get(key)) for name, row in experts.items()}
        _bars(axes, gain, colors, _MISSED[key], names=index == 0, digits=1 if key == "score_change" else 3)
        axes.set_xlabel("points" if key == "score_change" else "nats per answer token")
    axes_position = grid[1, 2 * len(missed) :] if missed else grid[1, :4]
    _scatter(figure.add_subplot(axes_position), experts, colors, missed[0] if missed else "relative_norm")
    return figure


def _bars(
    axes: "Axes", values: Mapping[str, Any], colors: Mapping[str, str], title: str, names: bool, digits: int = 3
) -> None:
    """A bar for each expert with its figure at the end; an expert without a figure has no bar."""
    rows = {name: row for row, name in enumerate(values)}
    numbers = {name: float(value) for name, value in values.items() if _is_number(value)}
    bars = axes.barh(
        [rows[name] for name in numbers], list(numbers.values()), color=[colors[name] for name in numbers], height=0.68
    )
    texts = axes.bar_label(bars, fmt=f"%.{digits}f", padding=3, fontsize=SMALL, color=palette.INK)
    for text in texts:
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
    axes.axvline(0, color=palette.INK, linewidth=0.8)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xticks=[], yticks=list(rows.values()) if names else [])
    axes.margins(x=0.3)
    if min(numbers.values(), default=0) >= 0:
        axes.set_xlim(left=0)
    if names:
        axes.set_yticklabels(list(rows))
    tidy(axes, title)


def _scatter(axes: "Axes", experts: Mapping[str, Any], colors: Mapping[str, str], key: str) -> None:
    """What an expert brings against the time it takes; up and left is good."""
    points = {
        name: (float(row[_COST]), _worth(key, float(row[key])))
        for name, row in experts.items()
        if _is_number(row.get(_COST)) and _is_number(row.get(key))
    }
    tidy(axes, f"{_BROUGHT[key]} against cost", grid="both")
    axes.axhline(0, color=palette.SOFT, linewidth=0.8)
    axes.set(xlabel="ms per image")
    if not points:
        return
    costs, worths = zip(*points.values(), strict=True)
    low, high, right = min(0.0, *worths), max(0.0, *worths), max(costs)
    margin = 0.12 * ((high - low) or 1.0)
    axes.set(xlim=(0, 1.45 * right), ylim=(low - margin, high + margin))
    heights = spread(worths, least=margin)
    for (name, (cost, gain)), height in zip(points.items(), heights, strict=True):
        axes.plot(cost, gain, "o", color=colors[name], markersize=8, label=name)
        axes.text(cost + 0.06 * right, height, name, va="center", fontsize=SMALL, color=palette.INK, parse_math=False,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip


def _worth(key: str, change: Any) -> Any:
    """A change as something that grows with the expert's worth; scores in points."""
    return -100 * change if key == "score_change" and _is_number(change) else change


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
