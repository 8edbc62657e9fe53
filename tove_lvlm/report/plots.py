"""What was logged over the steps, one small plot for each figure, the runs over each other; gate mass by expert."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..viz.palette import INK, expert_colors, model_colors
from ..viz.style import new_figure, tidy
from .reading import Run, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 4.2, 2.3
"""Inches; shown 350 to 420 pixels wide."""
_THIN = 1.4
"""Points."""
MOST_POINTS = 800
"""Points of a curve beyond which it is drawn by the means of neighbours."""
_TITLES = {
    "loss": "loss",
    "balance_loss": "balance loss",
    "gap": "gap to the tower (1: CLIP)",
    "cosine": "cosine to the tower's tokens",
    "grad_norm": "gradient norm",
    "gate_entropy": "gate entropy, nats",
    "images_per_s": "images per second",
    "tokens_per_s": "tokens per second",
    "peak_memory_gb": "peak memory, GB (10^9 bytes)",
}
SECTIONS = {
    "Losses": ("loss", "balance_loss", "gap", "cosine", "grad_norm"),
    "Learning rates": ("learning_rate/",),
    "Gate": ("gate_mass/", "gate_entropy"),
    "Throughput": ("images_per_s", "tokens_per_s"),
    "Memory": ("peak_memory_gb",),
}
"""Part of the page -> what it shows: names in the log, or, with a slash at the end, how names begin."""
OTHER = "Further figures"
"""Part of the page with what was logged besides."""
_NOT_SHOWN = ("learning_rate",)
"""Trainer's own, the largest of the rates."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot with what is said about it."""

    title: str
    figure: "Figure"
    about: str
    """For those who do not see it: first and last values."""
    legend: Mapping[str, str]
    """Name -> colour of what is drawn, where that differs from the runs' colours."""
    absent: Sequence[str] = ()
    """Runs that did not log it."""


def run_colors(runs: Sequence[Run]) -> dict[str, str]:
    """Run -> colour in all plots."""
    return model_colors(run.name for run in runs)


def section_plots(runs: Sequence[Run], section: str) -> list[Plot]:
    """The plots of one of `SECTIONS`; none where no run logged any of its figures.

    Args:
        runs: The report's.
        section: Its name, or `OTHER`.
    """
    if section == OTHER:
        return [curve_plot(runs, key) for key in _further(runs)]
    plots = []
    for name in SECTIONS[section]:
        if name == "gate_mass/":
            plots += [gate_mass_plot(run) for run in runs if run.experts]
        else:
            plots += [curve_plot(runs, key) for key in _keys(runs, name)]
    return plots


def curve_plot(runs: Sequence[Run], key: str) -> Plot:
    """One figure over the steps, a line for each run that logged it.

    Args:
        runs: The report's; a run without it has no line.
        key: Name in the log.
    """
    colors = run_colors(runs)
    logged = {run.name: run.series[key] for run in runs if key in run.series}
    title = _TITLES.get(key, key.replace("learning_rate/", "learning rate, "))
    figure, axes = _empty()
    for number, (name, series) in enumerate(logged.items(), start=1):
        # Of lines that lie on each other, as the rates of two runs, the lower ones show at the edges.
        _line(axes, series, colors[name], _THIN + 0.7 * (len(logged) - number))
    about = "; ".join(f"{name}: {_told(series)}" for name, series in logged.items())
    absent = [run.name for run in runs if run.name not in logged]
    return Plot(title=title, figure=figure, about=about, legend={}, absent=absent)


def gate_mass_plot(run: Run) -> Plot:
    """Gate mass of each expert of one run over the steps, from zero; the dotted line is an even gate.

    Args:
        run: With experts.
    """
    colors = expert_colors(run.experts)
    figure, axes = _empty()
    for name in run.experts:
        _line(axes, run.series[f"gate_mass/{name}"], colors[name])
    axes.axhline(1 / len(run.experts), color=INK, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0.5)
    axes.set_ylim(bottom=0)
    about = "; ".join(f"{name}: {_told(run.series[f'gate_mass/{name}'])}" for name in run.experts)
    return Plot(title=f"gate mass, {run.name}", figure=figure, about=about, legend=colors)


def thinned(series: Series, most: int = MOST_POINTS) -> tuple[list[float], list[float]]:
    """Steps and values to draw: as they are, or of a long series the means over equal numbers of neighbours.

    Args:
        series: What was logged. What is no number breaks the line, and is left out of a mean.
        most: Largest number of points.
    """
    width = -(-len(series.steps) // most)
    steps, values = [], []
    for start in range(0, len(series.steps), width):
        part, at = series.values[start : start + width], series.steps[start : start + width]
        finite = [value for value in part if math.isfinite(value)]
        values.append(sum(finite) / len(finite) if finite else math.nan)
        steps.append(sum(at) / len(at))
    return steps, values


def _keys(runs: Sequence[Run], name: str) -> list[str]:
    keys = dict.fromkeys(key for run in runs for key in run.series)
    return [key for key in keys if key == name or (name.endswith("/") and key.startswith(name))]


def _further(runs: Sequence[Run]) -> list[str]:
    shown = {key for names in SECTIONS.values() for name in names for key in _keys(runs, name)}
    return [key for key in dict.fromkeys(key for run in runs for key in run.series) if key not in {*shown, *_NOT_SHOWN}]


def _empty() -> tuple["Figure", "Axes"]:
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    tidy(axes, grid="y")
    axes.set_xlabel("optimizer step")
    return figure, axes


def _line(axes: "Axes", series: Series, color: str, width: float = _THIN) -> None:
    steps, values = thinned(series)
    # Beyond this matplotlib cannot lay out an axis.
    values = [value if abs(value) < 1e300 else math.nan for value in values]
    lonely = sum(map(math.isfinite, values)) < 2
    axes.plot(steps, values, color=color, linewidth=min(width, 5 * _THIN), marker="o" if lonely else None, markersize=3)


def _told(series: Series) -> str:
    finite = [(step, value) for step, value in zip(series.steps, series.values, strict=True) if math.isfinite(value)]
    if not finite:
        return "no finite number"
    (first, start), (last, end) = finite[0], finite[-1]
    return f"{start:.4g} at step {first}, {end:.4g} at step {last}"
