"""The study's data axis: how many training scenes does ToVE need for what CLIP-only reaches with all of them?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tove_lvlm.viz import palette
from tove_lvlm.viz.style import SMALL, new_figure, tidy

from .figure_parts import CLIP_ROW, TOVE_ROW, WIDTH, Seeds, end_labels, line_with_band, overall_scores, row_label
from .rows import CAPTION, data_id

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {"": "score on held-out questions, %", CAPTION: "objects named in the base model's captions, %"}


def data_axis_figure(results: Mapping[str, Any]) -> "Figure | None":
    """Scores against the number of training scenes: mean, least and most over the seeds, CLIP-only's best score.

    One panel for ToVE_Vicuna's questions and one for the base model's captions.

    Args:
        results: As for `study_figures`; `data_axis` is what data_axis.json holds.
    """
    axis = results.get("data_axis", {})
    panels = {prefix: _curves(results, axis.get("captioner", {}) if prefix else axis, prefix) for prefix in PANELS}
    panels = {prefix: curves for prefix, curves in panels.items() if curves}
    if not panels:
        return None
    figure = new_figure(WIDTH, 4)
    for axes, (prefix, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        tidy(axes, PANELS[prefix], grid="y")
        _draw(axes, curves, {name: row_label(results, name) for name in curves})
    return figure


def _curves(results: Mapping[str, Any], axis: Mapping[str, Any], prefix: str) -> dict[str, dict[int, Seeds]]:
    """Tower -> training scenes -> scores, ascending."""
    rows = overall_scores(results)
    curves = {
        name: {number: rows[prefix + data_id(name, number)] for number in sorted(map(int, axis.get(name, {})))}
        for name in (CLIP_ROW, TOVE_ROW)
    }
    return {name: points for name, points in curves.items() if points}


def _draw(axes: "Axes", curves: Mapping[str, Mapping[int, Seeds]], labels: Mapping[str, str]) -> None:
    colors = palette.model_colors(curves)
    axes.set_xscale("log")
    for name, points in curves.items():
        line_with_band(axes, list(points), list(points.values()), colors[name], name)
    end_labels(axes, {labels[name]: (points[max(points)].mean, colors[name]) for name, points in curves.items()})
    scenes = sorted({number for points in curves.values() for number in points})
    axes.set_xticks(scenes, [f"{number:,}" for number in scenes])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="training scenes")
    if CLIP_ROW in curves:
        most = max(curves[CLIP_ROW])
        target = curves[CLIP_ROW][most].mean
        axes.axhline(target, color=colors[CLIP_ROW], linewidth=1, linestyle=(0, (2, 2)), zorder=0.5)
        reached = [number for number, seeds in curves.get(TOVE_ROW, {}).items() if seeds.mean >= target]
        conclusion = f":\nToVE is past it with {reached[0]:,}" if reached and reached[0] < most else ""
        axes.annotate(f"CLIP-only with {most:,} scenes{conclusion}", (0, target), xycoords=("axes fraction", "data"),
                      xytext=(0, 3), textcoords="offset points", va="bottom", fontsize=SMALL,
                      color=palette.SOFT)  # fmt: skip
