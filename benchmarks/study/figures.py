"""Figures of the miniature study (benchmarks/miniature_study.py).

Every figure shows the mean and each seed; what the results lack is left out. Scores are in per cent.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tove_lvlm.viz import palette
from tove_lvlm.viz.style import SMALL, new_figure, save_figure, tidy

from .axis_figure import data_axis_figure
from .figure_parts import (
    CLIP_ROW,
    TOVE_ROW,
    WIDTH,
    Seeds,
    chance_level,
    dots,
    end_labels,
    legend,
    line_with_band,
    overall_scores,
    row_colors,
    row_label,
    share_of,
    with_gain,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GROUPS = {
    "main": "",
    "single": "one expert alone",
    "control": "controls",
    "second_base": "on a CLIP with richer captions",
    "ablation": "ablations",
    "gate": "the gate",
    "world": "where tokens need different experts",
}


def study_figures(results: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """Write every figure that the results have numbers for, as SVG and PNG.

    Args:
        results: The study's JSON, and `data_axis`: `rows`, and perhaps `chance`, `budgets`, `detach`.
        folder: Where.

    Returns:
        The files: overall, families, data_axis, budgets, detach.
    """
    drawn: dict[str, Callable[[Mapping[str, Any]], Figure | None]] = {
        "overall": overall_figure,
        "families": families_figure,
        "data_axis": data_axis_figure,
        "budgets": budgets_figure,
        "detach": detach_figure,
    }
    files = []
    for name, draw in drawn.items():
        figure = draw(results)
        if figure is not None:
            files += save_figure(figure, Path(folder) / name)
    return files


def overall_figure(results: Mapping[str, Any]) -> "Figure | None":
    """Overall score of each row: its mean as a bar's end, each seed as a dot, chance as a line.

    Args:
        results: As for `study_figures`.
    """
    scores = overall_scores(results)
    groups = {group: [name for name in scores if results["rows"][name]["group"] == group] for group in _GROUPS}
    groups = {group: names for group, names in groups.items() if names}
    if not groups:
        return None
    shown, labels, position = [], {}, 0.0
    for group, names in groups.items():
        if _GROUPS[group]:
            labels[position] = _GROUPS[group]
            position += 1
        for name in names:
            shown.append((position, name))
            position += 1
        position += 0.4
    colors = row_colors(results)
    figure = new_figure(WIDTH, 0.75 + 0.235 * position)
    axes = tidy(figure.add_subplot(), "score on held-out questions, %", grid="x")
    low = min([value for _, name in shown for value in scores[name].values] + chance_level(results))
    reference = scores[CLIP_ROW].mean if CLIP_ROW in scores else None
    for at, name in shown:
        axes.plot([low, scores[name].mean], [at, at], color=colors[name], linewidth=1, alpha=0.45, zorder=1)
        dots(axes, scores[name], at, colors[name], name, along="x")
        axes.annotate(with_gain(scores[name].mean, reference if name != CLIP_ROW else None), (1, at),
                      xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points", va="center",
                      fontsize=SMALL, color=palette.INK)  # fmt: skip
    if reference is not None:
        axes.axvline(reference, color=palette.MODELS["clip"], linewidth=1, linestyle=(0, (2, 2)), zorder=0.5)
    for value in chance_level(results):
        axes.axvline(value, color=palette.SOFT, linewidth=1, zorder=0.5)
        axes.annotate("chance", (value, 1), xycoords=("data", "axes fraction"), xytext=(3, -1), fontsize=SMALL,
                      textcoords="offset points", color=palette.SOFT, va="top")  # fmt: skip
    ticks = {at: results["rows"][name]["label"] for at, name in shown} | labels
    axes.set(ylim=(position - 0.8, -0.8), yticks=list(ticks))
    axes.set_yticklabels(list(ticks.values()), parse_math=False)
    for at, text in zip(ticks, axes.get_yticklabels(), strict=True):
        text.set(color=palette.SOFT if at in labels else palette.INK, style="italic" if at in labels else "normal")
    return figure


def families_figure(results: Mapping[str, Any]) -> "Figure | None":
    """The main rows by question family: bars are means, dots seeds, short lines chance.

    Args:
        results: As for `study_figures`.
    """
    rows = {name: row for name, row in results.get("rows", {}).items() if row["group"] == "main" and row["seeds"]}
    families = list(
        dict.fromkeys(f for row in rows.values() for seed in row["seeds"].values() for f in seed["families"])
    )
    if not families:
        return None
    colors, width = row_colors(results), 0.84 / len(rows)
    chance = results.get("chance", {}).get("families", {})
    num_lines = -(-len(families) // 5)
    figure = new_figure(WIDTH, 1.9 * num_lines + 0.5)
    lines = figure.subplots(num_lines, 1, squeeze=False)[:, 0]
    for line, axes in enumerate(lines):
        chosen = families[line * 5 : line * 5 + 5]
        tidy(axes, "" if line else "% right by question family", grid="y")
        for slot, (name, row) in enumerate(rows.items()):
            for at, family in enumerate(chosen):
                accuracies = [
                    s["families"][family]["accuracy"] for s in row["seeds"].values() if family in s["families"]
                ]
                if not accuracies:
                    continue
                scores, x = Seeds.of(accuracies), at + (slot - (len(rows) - 1) / 2) * width
                axes.bar(x, scores.mean, 0.9 * width, color=colors[name], label=f"{name}/{family}")
                axes.plot([x] * len(accuracies), scores.values, "o", color=palette.INK, markersize=2.2, alpha=0.7)
        for at, family in enumerate(chosen):
            if family in chance:
                axes.plot([at - 0.45, at + 0.45], [100 * share_of(chance[family])] * 2, color=palette.INK, linewidth=1)
        axes.set(xlim=(-0.6, 4.6), ylim=(0, 104), xticks=range(len(chosen)), yticks=[0, 50, 100])
        axes.set_xticklabels(chosen, fontsize=SMALL)
    legend(figure, [(results["rows"][name]["label"], colors[name]) for name in rows], bool(chance))
    return figure


def budgets_figure(results: Mapping[str, Any]) -> "Figure | None":
    """Score on validation scenes against the share of the steps, of one seed: does a row still improve at the end?

    Args:
        results: As for `study_figures`.
    """
    curves = {name: curve for name, curve in results.get("budgets", {}).items() if curve}
    if not curves:
        return None
    colors = palette.model_colors(curves)
    figure = new_figure(WIDTH, 3.4)
    panels = figure.subplots(1, 2, sharex=True)
    for axes, family, title in zip(panels, (None, "leftright"), ("all questions", "left or right"), strict=True):
        tidy(axes, f"{title}, validation, %", grid="y")
        ends = {}
        for name, curve in curves.items():
            scores = [
                100 * (s["overall"] if family is None else s["families"][family]["accuracy"]) for s in curve.values()
            ]
            budgets = [float(budget) for budget in curve]
            axes.plot(budgets, scores, "-o", color=colors[name], linewidth=2, markersize=5, label=name)
            ends[row_label(results, name)] = (scores[-1], colors[name])
        axes.axvline(1, color=palette.SOFT, linewidth=1, zorder=0.5)
        axes.set(xlabel="share of the study's steps")
        end_labels(axes, ends)
    return figure


def detach_figure(results: Mapping[str, Any]) -> "Figure | None":
    """Score after each detachment for each trained model, beside CLIP-only; at the right, one expert gone at a time.

    Args:
        results: As for `study_figures`.
    """
    rows = {name: seeds for name, seeds in results.get("detach", {}).items() if seeds}
    if not rows:
        return None
    colors = dict(zip(rows, [palette.MODELS["tove"], *palette.FURTHER], strict=False))
    experts = list(
        dict.fromkeys(e for seeds in rows.values() for seed in seeds.values() for e in seed.get("single", {}))
    )
    figure = new_figure(WIDTH, 3.6)
    both = figure.subplots(1, 2, sharey=True, width_ratios=[1.5, 1]) if experts else [figure.add_subplot()]
    axes = tidy(both[0], "score after each detachment, %", grid="y")
    ends = {}
    for name, seeds in rows.items():
        runs = [seed["overall"] for seed in seeds.values()]
        steps = range(max(len(run) for run in runs))
        scores = [Seeds.of([run[step] for run in runs if step < len(run)]) for step in steps]
        line_with_band(axes, list(steps), scores, colors[name], name)
        with_dropout = name == TOVE_ROW and len(rows) > 1
        ends["with expert dropout" if with_dropout else row_label(results, name)] = (scores[-1].mean, colors[name])
    clip = overall_scores(results).get(CLIP_ROW)
    if clip is not None:
        for part in both:
            part.axhline(clip.mean, color=palette.MODELS["clip"], linewidth=1, linestyle=(0, (2, 2)), zorder=0.5)
        axes.annotate(row_label(results, CLIP_ROW), (0, clip.mean), xytext=(0, 3), textcoords="offset points",
                      fontsize=SMALL, color=palette.SOFT, va="bottom")  # fmt: skip
    most = max(len(seed["overall"]) for seeds in rows.values() for seed in seeds.values())
    axes.set(xticks=range(most), xlabel="experts detached, least useful first")
    end_labels(axes, ends)
    if experts:
        _draw_single(both[1], rows, experts, colors)
    return figure


def _draw_single(axes: "Axes", rows: Mapping[str, Any], experts: list[str], colors: Mapping[str, str]) -> None:
    tidy(axes, "with one expert gone", grid="y")
    for slot, (name, seeds) in enumerate(rows.items()):
        for at, expert in enumerate(experts):
            accuracies = [seed["single"][expert] for seed in seeds.values() if expert in seed.get("single", {})]
            if accuracies:
                x = at + (slot - (len(rows) - 1) / 2) * 0.22
                dots(axes, Seeds.of(accuracies), x, colors[name], f"{name}/{expert}", along="y")
    axes.set(xlim=(-0.6, len(experts) - 0.4), xticks=range(len(experts)))
    axes.set_xticklabels(experts)
    for text, color in zip(axes.get_xticklabels(), palette.expert_colors(experts).values(), strict=True):
        text.set_color(color)
