"""What the study's figures are drawn with: scores over seeds, lines with a band, labels at their ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tove_lvlm.viz import palette
from tove_lvlm.viz.style import SMALL, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLIP_ROW, TOVE_ROW = "clip", "tove"
WIDTH = 8
"""Of every figure, in inches."""


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


def dots(axes: "Axes", scores: Seeds, at: float, color: str, label: str, along: str) -> None:
    """A large dot for the mean, small ones for the seeds."""
    for values, size, alpha, tag in ((scores.values, 3, 0.55, "_seeds"), ((scores.mean,), 6.5, 1, label)):
        across = [at] * len(values)
        x, y = (values, across) if along == "x" else (across, values)
        axes.plot(x, y, "o", color=color, markersize=size, alpha=alpha, markeredgewidth=0, label=tag)


def line_with_band(axes: "Axes", x: list[float], scores: Sequence[Seeds], color: str, label: str) -> None:
    axes.fill_between(
        x, [min(s.values) for s in scores], [max(s.values) for s in scores], color=color, alpha=0.18, linewidth=0
    )
    axes.plot(x, [s.mean for s in scores], "-o", color=color, linewidth=2, markersize=5, label=label)


def end_labels(axes: "Axes", ends: Mapping[str, tuple[float, str]]) -> None:
    """Names beside the lines' ends, kept apart."""
    low, high = axes.get_ylim()
    positions = spread([value for value, _ in ends.values()], least=0.065 * (high - low))
    for (label, (_, color)), position in zip(ends.items(), positions, strict=True):
        axes.annotate(label, (1, position), xycoords=("axes fraction", "data"), xytext=(2, 0), parse_math=False,
                      textcoords="offset points", va="center", fontsize=SMALL, color=color)  # fmt: skip


def legend(figure: "Figure", entries: list[tuple[str, str]], with_chance: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Patch | Line2D] = [Patch(facecolor=color, label=label) for label, color in entries]
    if with_chance:
        handles.append(Line2D([], [], color=palette.INK, linewidth=1, label="chance"))
    figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), 4), frameon=False,
                  fontsize=SMALL, handlelength=1, handleheight=1)  # fmt: skip


def row_colors(results: Mapping[str, Any]) -> dict[str, str]:
    """Main rows have their models' colours, a row of one expert its expert's, the others a quiet one."""
    rows = results["rows"]
    models = palette.model_colors([name for name, row in rows.items() if row["group"] == "main"])
    experts = {name: palette.EXPERTS.get(name.removeprefix("only_"), palette.SOFT) for name in rows}
    return {name: models.get(name) or experts[name] for name in rows}


def row_label(results: Mapping[str, Any], name: str) -> str:
    return results.get("rows", {}).get(name, {}).get("label", name)


def chance_level(results: Mapping[str, Any]) -> list[float]:
    chance = results.get("chance", {}).get("overall")
    return [] if chance is None else [100 * share_of(chance)]


def share_of(value: Any) -> float:
    """A chance level, alone or with its number of questions."""
    return float(value["accuracy"] if isinstance(value, Mapping) else value)


def with_gain(value: float, reference: float | None) -> str:
    return f"{value:.1f}" if reference is None else f"{value:.1f}  {value - reference:+.1f}"
