"""The parts of the page about the runs themselves: what came out, the plots, the configuration, the versions."""

import json
from collections.abc import Sequence
from statistics import median
from typing import Any

from .markup import Figures, Html, element, escaped, paragraph, section, table
from .plots import OTHER, SECTIONS, Plot, run_colors, section_plots
from .reading import Run, Series, differing

NOT_LOGGED, NOT_RECORDED = "not logged", "not recorded"
_RECORDED = {"commit": "commit", "hardware": "hardware", "world_size": "ranks"}
_LAST = {"loss": "last loss", "gap": "last gap", "gate_entropy": "last gate entropy"}
_TYPICAL = {"images_per_s": "images per second, median", "tokens_per_s": "tokens per second, median"}


def summary(runs: Sequence[Run]) -> Html:
    """Where each run stands and what it came to, and what its logs lack."""
    logged = {key for run in runs for key in run.series}
    last = {key: label for key, label in _LAST.items() if key in logged or key == "loss"}
    rows: list[list[Any]] = [
        ["folder", *(run.folder for run in runs)],
        ["vision tower", *(_value(run, "model.vision_tower", "model.pretrained", "model.checkpoint") for run in runs)],
        ["seed", *(_value(run, "train.seed") for run in runs)],
        ["optimizer steps", *map(_progress, runs)],
        *([label, *(_figure(run, key, "last") for run in runs)] for key, label in last.items()),
        ["experts, by last gate mass", *map(_gate_mass, runs)],
        *([label, *(_figure(run, key, "median") for run in runs)] for key, label in _TYPICAL.items()),
        ["peak memory, GB", *(_figure(run, "peak_memory_gb", "max") for run in runs)],
    ]
    problems = [element("li", [element("strong", run.name), ": ", text]) for run in runs for text in run.problems]
    notes = [element("h3", "What is wrong with the logs"), element("ul", problems)] if problems else []
    return section("Summary", [table(["", *(run.name for run in runs)], rows, "Summary of the runs"), *notes])


def curves(runs: Sequence[Run], figures: Figures) -> dict[str, Html]:
    """Losses, rates, gate, throughput and memory over the steps, by title; a part that no run logged says so."""
    parts = {}
    for title in (*SECTIONS, OTHER):
        plots = section_plots(runs, title)
        if not plots:
            if title != OTHER:
                parts[title] = section(title, [paragraph("Not logged.")])
            continue
        notes = []
        if title == "Gate":
            without = [run.name for run in runs if not run.experts]
            notes += [paragraph(f"No gate mass logged: {', '.join(without)}.", class_="soft")] if without else []
            notes.append(paragraph("Dotted: the same mass for each expert.", class_="soft"))
        shown = element("div", [_plot(plot, figures) for plot in plots], class_="plots")
        parts[title] = section(title, [figures.legend(run_colors(runs)), *notes, shown])
    return parts


def configuration(runs: Sequence[Run]) -> Html:
    """All keys of the runs' YAMLs; of several runs first those whose values differ, which are marked there too."""
    with_yaml = [run for run in runs if run.config]
    if not with_yaml:
        return section("Configuration", [paragraph("There is no run.yaml.")])
    keys = list(dict.fromkeys(key for run in with_yaml for key in run.config))
    head = ["key", *(run.name for run in with_yaml)]
    rows = [[key, *(_setting(run, key) for run in with_yaml)] for key in keys]
    whole = table(head, rows, "Configuration of the runs")
    if len(with_yaml) == 1:
        return section("Configuration", [whole])
    others = differing(with_yaml)
    marked = [keys.index(key) for key in others]
    whole = table(head, [[f"≠ {row[0]}" if n in marked else row[0], *row[1:]] for n, row in enumerate(rows)],
                  "Configuration of the runs", marked)  # fmt: skip
    apart = [paragraph("All values are the same.")]
    if others:
        apart = [table(head, [rows[number] for number in marked], "Keys whose values differ", range(len(marked)))]
    return section("Configuration", [element("h3", "What differs"), *apart, element("h3", "All keys"), whole])


def versions(runs: Sequence[Run]) -> Html:
    """Commit, hardware and package versions of each run, as far as they are recorded."""
    rows: list[list[Any]] = [
        [label, *(run.made_by.get(key, NOT_RECORDED) for run in runs)] for key, label in _RECORDED.items()
    ]
    found = [run.made_by.get("versions") for run in runs]
    by_run = [one if isinstance(one, dict) else {} for one in found]
    packages = dict.fromkeys(package for one in by_run for package in one)
    rows += [[package, *(one.get(package, NOT_RECORDED) for one in by_run)] for package in packages]
    return section("Versions and hardware", [table(["", *(run.name for run in runs)], rows, "Versions and hardware")])


def _plot(plot: Plot, figures: Figures) -> Html:
    below = [figures.legend(plot.legend)] if plot.legend else []
    if plot.absent:
        below.append(paragraph(f"{NOT_LOGGED}: {', '.join(plot.absent)}", class_="soft"))
    return figures.add(plot.figure, plot.title, plot.about, below)


def _progress(run: Run) -> str:
    if run.max_steps is None:
        return "none logged"
    done = "all" if run.last_step >= run.max_steps else "going on, or stopped"
    return f"{run.last_step} of {run.max_steps} ({done})"


def _gate_mass(run: Run) -> str:
    masses = {name: run.series[f"gate_mass/{name}"].last for name in run.experts}
    known = sorted(((mass, name) for name, mass in masses.items() if mass is not None), reverse=True)
    return ", ".join(f"{name} {mass:.3f}" for mass, name in known) or NOT_LOGGED


def _figure(run: Run, key: str, which: str) -> str:
    series = run.series.get(key)
    value = None if series is None else _one(series, which)
    return NOT_LOGGED if value is None else f"{value:.4g}"


def _one(series: Series, which: str) -> float | None:
    finite = series.finite
    if not finite:
        return None
    return {"last": finite[-1], "median": median(finite), "max": max(finite)}[which]


def _value(run: Run, *keys: str) -> Any:
    """The first of these keys that the run's YAML gives a value."""
    return next((run.config[key] for key in keys if run.config.get(key) is not None), NOT_RECORDED)


def _setting(run: Run, key: str) -> Html:
    """A value as YAML's readers know it; a key that is not there is a dash."""
    if key not in run.config:
        return escaped("–")
    value = run.config[key]
    return escaped(value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False, default=str))
