"""Figures of the miniature study (benchmarks/miniature_study.py).

Every figure shows the mean and each seed; what the results lack is left out. Scores are in per cent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tove_lvlm.viz import palette
from tove_lvlm.viz.style import SMALL, new_figure, save_figure, spread, tidy

from .rows import data_id

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLIP_ROW, TOVE_ROW = "clip", "tove"
_GROUPS = {
    "main": "",
    "single": "one expert alone",
    "control": "controls",
    "ablation": "ablations",
    "gate": "the gate",
    "world": "where tokens need different experts",
}
_WIDTH = 8


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


@dataclass(frozen=True)
class Seeds:
    """One quantity over the seeds, in per cent."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, shares: Sequence[float]) -> "Seeds":
        """From shares in [0, 1]."""
        return cls(tuple(100 * share for share in shares))

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return fmean(self.values)


def overall_scores(results: Mapping[str, Any]) -> dict[str, Seeds]:
    """Row -> its overall scores; rows without a seed are left out."""
    rows = results.get("rows", {})
    return {name: Seeds.of([s["overall"] for s in row["seeds"].values()]) for name, row in rows.items() if row["seeds"]}


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
    colors = _row_colors(results)
    figure = new_figure(_WIDTH, 0.75 + 0.235 * position)
    axes = tidy(figure.add_subplot(), "score on held-out questions, %", grid="x")
    low = min([value for _, name in shown for value in scores[name].values] + _chance(results))
    reference = scores[CLIP_ROW].mean if CLIP_ROW in scores else None
    for at, name in shown:
        axes.plot([low, scores[name].mean], [at, at], color=colors[name], linewidth=1, alpha=0.45, zorder=1)
        _dots(axes, scores[name], at, colors[name], name, along="x")
        axes.annotate(_with_gain(scores[name].mean, reference if name != CLIP_ROW else None), (1, at),
                      xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points", va="center",
                      fontsize=SMALL, color=palette.INK)  # fmt: skip
    if reference is not None:
        axes.axvline(reference, color=palette.MODELS["clip"], linewidth=1, linestyle=(0, (2, 2)), zorder=0.5)
    for value in _chance(results):
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
    colors, width = _row_colors(results), 0.84 / len(rows)
    chance = results.get("chance", {}).get("families", {})
    num_lines = -(-len(families) // 5)
    figure = new_figure(_WIDTH, 1.9 * num_lines + 0.5)
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
                axes.plot([at - 0.45, at + 0.45], [100 * _share(chance[family])] * 2, color=palette.INK, linewidth=1)
        axes.set(xlim=(-0.6, 4.6), ylim=(0, 104), xticks=range(len(chosen)), yticks=[0, 50, 100])
        axes.set_xticklabels(chosen, fontsize=SMALL)
    _legend(figure, [(results["rows"][name]["label"], colors[name]) for name in rows], bool(chance))
    return figure


def data_axis_figure(results: Mapping[str, Any]) -> "Figure | None":
    """Score against the number of training scenes: mean, least and most over the seeds, CLIP-only's best score.

    Args:
        results: As for `study_figures`; `data_axis` is what data_axis.json holds.
    """
    curves = {name: _axis(results, name) for name in results.get("data_axis", {})}
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return None
    colors = palette.model_colors(curves)
    figure = new_figure(_WIDTH, 4)
    axes = tidy(figure.add_subplot(), "score on held-out questions, %", grid="y")
    axes.set_xscale("log")
    for name, points in curves.items():
        _line_with_band(axes, list(points), list(points.values()), colors[name], name)
    _end_labels(
        axes, {_label(results, name): (points[max(points)].mean, colors[name]) for name, points in curves.items()}
    )
    scenes = sorted({number for points in curves.values() for number in points})
    axes.set_xticks(scenes, [f"{number:,}" for number in scenes])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="training scenes")
    if CLIP_ROW in curves:
        most = max(curves[CLIP_ROW])
        target = curves[CLIP_ROW][most].mean
        axes.axhline(target, color=colors[CLIP_ROW], linewidth=1, linestyle=(0, (2, 2)), zorder=0.5)
        reached = [number for number, seeds in curves.get(TOVE_ROW, {}).items() if seeds.mean >= target]
        conclusion = f": ToVE is past it with {reached[0]:,}" if reached and reached[0] < most else ""
        axes.annotate(f"CLIP-only with {most:,} scenes{conclusion}", (0, target), xycoords=("axes fraction", "data"),
                      xytext=(0, 3), textcoords="offset points", va="bottom", fontsize=SMALL,
                      color=palette.SOFT)  # fmt: skip
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
    figure = new_figure(_WIDTH, 3.4)
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
            ends[_label(results, name)] = (scores[-1], colors[name])
        axes.axvline(1, color=palette.SOFT, linewidth=1, zorder=0.5)
        axes.set(xlabel="share of the study's steps")
        _end_labels(axes, ends)
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
    figure = new_figure(_WIDTH, 3.6)
    both = figure.subplots(1, 2, sharey=True, width_ratios=[1.5, 1]) if experts else [figure.add_subplot()]
    axes = tidy(both[0], "score after each detachment, %", grid="y")
    ends = {}
    for name, seeds in rows.items():
        runs = [seed["overall"] for seed in seeds.values()]
        steps = range(max(len(run) for run in runs))
        scores = [Seeds.of([run[step] for run in runs if step < len(run)]) for step in steps]
        _line_with_band(axes, list(steps), scores, colors[name], name)
        with_dropout = name == TOVE_ROW and len(rows) > 1
        ends["with expert dropout" if with_dropout else _label(results, name)] = (scores[-1].mean, colors[name])
    clip = overall_scores(results).get(CLIP_ROW)
    if clip is not None:
        for part in both:
            part.axhline(clip.mean, color=palette.MODELS["clip"], linewidth=1, linestyle=(0, (2, 2)), zorder=0.5)
        axes.annotate(_label(results, CLIP_ROW), (0, clip.mean), xytext=(0, 3), textcoords="offset points",
                      fontsize=SMALL, color=palette.SOFT, va="bottom")  # fmt: skip
    most = max(len(seed["overall"]) for seeds in rows.values() for seed in seeds.values())
    axes.set(xticks=range(most), xlabel="experts detached, least useful first")
    _end_labels(axes, ends)
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
                _dots(axes, Seeds.of(accuracies), x, colors[name], f"{name}/{expert}", along="y")
    axes.set(xlim=(-0.6, len(experts) - 0.4), xticks=range(len(experts)))
    axes.set_xticklabels(experts)
    for text, color in zip(axes.get_xticklabels(), palette.expert_colors(experts).values(), strict=True):
        text.set_color(color)


# ---- parts ----


def _dots(axes: "Axes", scores: Seeds, at: float, color: str, label: str, along: str) -> None:
    """A large dot for the mean, small ones for the seeds."""
    for values, size, alpha, tag in ((scores.values, 3, 0.55, "_seeds"), ((scores.mean,), 6.5, 1, label)):
        across = [at] * len(values)
        x, y = (values, across) if along == "x" else (across, values)
        axes.plot(x, y, "o", color=color, markersize=size, alpha=alpha, markeredgewidth=0, label=tag)


def _line_with_band(axes: "Axes", x: list[float], scores: Sequence[Seeds], color: str, label: str) -> None:
    axes.fill_between(
        x, [min(s.values) for s in scores], [max(s.values) for s in scores], color=color, alpha=0.18, linewidth=0
    )
    axes.plot(x, [s.mean for s in scores], "-o", color=color, linewidth=2, markersize=5, label=label)


def _end_labels(axes: "Axes", ends: Mapping[str, tuple[float, str]]) -> None:
    """Names beside the lines' ends, kept apart."""
    low, high = axes.get_ylim()
    positions = spread([value for value, _ in ends.values()], least=0.065 * (high - low))
    for (label, (_, color)), position in zip(ends.items(), positions, strict=True):
        axes.annotate(label, (1, position), xycoords=("axes fraction", "data"), xytext=(2, 0), parse_math=False,
                      textcoords="offset points", va="center", fontsize=SMALL, color=color)  # fmt: skip


def _legend(figure: "Figure", entries: list[tuple[str, str]], with_chance: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Patch | Line2D] = [Patch(facecolor=color, label=label) for label, color in entries]
    if with_chance:
        handles.append(Line2D([], [], color=palette.INK, linewidth=1, label="chance"))
    figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), 4), frameon=False,
                  fontsize=SMALL, handlelength=1, handleheight=1)  # fmt: skip


def _row_colors(results: Mapping[str, Any]) -> dict[str, str]:
    """Main rows have their models' colours, a row of one expert its expert's, the others a quiet one."""
    rows = results["rows"]
    models = palette.model_colors([name for name, row in rows.items() if row["group"] == "main"])
    experts = {name: palette.EXPERTS.get(name.removeprefix("only_"), palette.SOFT) for name in rows}
    return {name: models.get(name) or experts[name] for name in rows}


def _label(results: Mapping[str, Any], name: str) -> str:
    return results.get("rows", {}).get(name, {}).get("label", name)


def _chance(results: Mapping[str, Any]) -> list[float]:
    chance = results.get("chance", {}).get("overall")
    return [] if chance is None else [100 * _share(chance)]


def _share(value: Any) -> float:
    """A chance level, alone or with its number of questions."""
    return float(value["accuracy"] if isinstance(value, Mapping) else value)


def _axis(results: Mapping[str, Any], tower: str) -> dict[int, Seeds]:
    """Training scenes -> scores, ascending."""
    rows = overall_scores(results)
    numbers = sorted(int(number) for number in results["data_axis"][tower])
    return {number: rows[data_id(tower, number)] for number in numbers}


def _with_gain(value: float, reference: float | None) -> str:
    return f"{value:.1f}" if reference is None else f"{value:.1f}  {value - reference:+.1f}"
