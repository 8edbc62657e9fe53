"""Training runs as they lie on the disk: what was logged, with which configuration, by which versions.

A run that goes on, or was killed, is read too: lines that are cut off are counted and left out.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..config import UserError
from ..config.model import MODEL_FILE
from ..provenance import RUN_FILE
from ..storage import load_json, short_names

METRICS_FILE, CONFIG_FILE = "metrics.jsonl", "run.yaml"
_DEEPEST = 2
_NO_RUN = ("checkpoint-", "superseded-", ".")
"""How folders begin that hold parts of a run."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """What was logged under one name."""

    steps: list[int]
    """Optimizer steps, ascending."""
    values: list[float]
    """One for each; not finite where the run logged that."""

    @property
    def finite(self) -> list[float]:
        """The values that are numbers."""
        return [value for value in self.values if math.isfinite(value)]

    @property
    def last(self) -> float | None:
        """The last value that is a number; None without one."""
        return next((value for value in reversed(self.values) if math.isfinite(value)), None)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run."""

    folder: Path
    name: str
    """Short, unlike those of the other runs of the report."""
    series: dict[str, Series]
    """Name in metrics.jsonl -> what was logged."""
    config: dict[str, Any]
    """Dotted key of run.yaml -> value; empty where there is no such file."""
    max_steps: int | None
    """Optimizer steps that were planned; None where nothing was logged."""
    made_by: dict[str, Any]
    """`versions`, `commit`, `hardware`, `world_size` as far as they are recorded."""
    problems: list[str] = field(default_factory=list)
    """What of the logs could not be used; sentences."""

    @property
    def last_step(self) -> int:
        """Optimizer step of the last line of the log; 0 where there is none."""
        return max((series.steps[-1] for series in self.series.values()), default=0)

    @property
    def experts(self) -> list[str]:
        """Experts whose gate mass was logged, in the tower's order."""
        return [name.removeprefix("gate_mass/") for name in self.series if name.startswith("gate_mass/")]


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Every run in these folders.

    Args:
        folders: Each a run's own folder, or one that holds several.

    Raises:
        UserError: A folder is absent or holds no run, or a file of a run is not what a training script writes.
    """
    found = dict.fromkeys(path for folder in folders for path in _runs_in(Path(folder)))
    names = short_names(list(found))
    return [_read(path, name) for path, name in zip(found, names, strict=True)]


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of each entry of nested blocks, in their order; an empty block is a value.

    Args:
        value: What a YAML holds.
        key: Of the block.
    """
    if isinstance(value, dict) and (value or not key):
        for name, entry in value.items():
            yield from flat(entry, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def differing(runs: Sequence[Run]) -> list[str]:
    """Keys whose values are not the same in all runs, in the order of the YAMLs."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    absent = object()
    return [key for key in keys if any(run.config.get(key, absent) != runs[0].config.get(key, absent) for run in runs)]


def _runs_in(folder: Path) -> list[Path]:
    if not folder.exists():
        raise UserError(f"run `{folder}` does not exist; name a folder that a training script wrote")
    if not folder.is_dir():
        raise UserError(f"run `{folder}` is a file; name the folder that a training script wrote")
    path = folder.resolve()
    if path.name.startswith("checkpoint-") and (path / "complete.json").is_file():
        raise UserError(f"`{folder}` is a checkpoint of a run; name the run's folder, `{path.parent}`")
    runs = list(_walk(path, _DEEPEST))
    if not runs:
        raise UserError(
            f"there is no training run in `{folder}`: neither it nor a folder in it has a {METRICS_FILE} or a "
            f"{CONFIG_FILE}; name the train.output_dir of a run"
        )
    return runs


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """A folder that is a run, else the runs in it. A run's own folders are not looked into."""
    if (folder / METRICS_FILE).is_file() or (folder / CONFIG_FILE).is_file():
        yield folder
    elif depth:
        for entry in sorted(folder.iterdir()):
            if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith(_NO_RUN):
                yield from _walk(entry, depth - 1)


def _read(folder: Path, name: str) -> Run:
    lines, problems = _log_lines(folder / METRICS_FILE)
    series = _series(lines)
    bad = {key: one for key, one in series.items() if len(one.finite) < len(one.values)}
    for key, one in bad.items():
        steps = [step for step, value in zip(one.steps, one.values, strict=True) if not math.isfinite(value)]
        problems.append(f"`{key}` is not a finite number at step {_listed(steps)}")
    planned = [line["max_steps"] for line in lines if isinstance(line.get("max_steps"), int)]
    return Run(
        folder=folder,
        name=name,
        series=series,
        config=dict(flat(_config(folder / CONFIG_FILE))),
        max_steps=planned[-1] if planned else None,
        made_by=_made_by(folder),
        problems=problems,
    )


def _log_lines(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The log's lines by step, and what is wrong with it; of a step that was logged twice the last line counts."""
    if not path.is_file():
        return [], [f"there is no {METRICS_FILE}: nothing was logged"]
    by_step, broken = {}, []
    for number, text in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            step = line["step"]
        except (ValueError, RecursionError, KeyError, TypeError):
            broken.append(number)
            continue
        if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 2**53:
            by_step[step] = line
        else:
            broken.append(number)
    problems = [f"{METRICS_FILE} has lines that cannot be read and are left out: {_listed(broken)}"] if broken else []
    return [by_step[step] for step in sorted(by_step)], problems


def _series(lines: Sequence[dict[str, Any]]) -> dict[str, Series]:
    points: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for key, value in line.items():
            if key not in ("step", "max_steps", "epoch") and isinstance(value, int | float):
                points.setdefault(key, []).append((line["step"], _as_float(value)))
    return {
        key: Series(steps=[step for step, _ in pairs], values=[value for _, value in pairs])
        for key, pairs in points.items()
    }


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        # A YAML error's own text has lines of the file in it.
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(
            f"`{path}` is no run's YAML, it cannot be read: {reason}; restore it, or leave the run out"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"`{path}` is no run's YAML: it holds no `key: value` lines; restore it, or leave the run out")
    return content


def _made_by(folder: Path) -> dict[str, Any]:
    """What the run recorded of itself; of runs from before there was such a record, what their model says."""
    if (folder / RUN_FILE).is_file():
        return load_json(folder / RUN_FILE)
    for beside in (folder, folder / "adapter"):
        if (beside / MODEL_FILE).is_file():
            written_by = load_json(beside / MODEL_FILE).get("written_by")
            return {"versions": written_by} if isinstance(written_by, dict) else {}
    return {}


def _listed(numbers: Sequence[int], limit: int = 5) -> str:
    return ", ".join(map(str, numbers[:limit])) + (f" and {len(numbers) - limit} more" if len(numbers) > limit else "")
