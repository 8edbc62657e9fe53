"""What was measured of a trained model: records of `tove eval`, reports of `tove usage`, panels of `tove gates`, and
the held-out questions of `tove demo`.

They are taken from the runs' own folders, from `tove eval`'s folders beside a run that name it as their model, and from
folders that are given.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import UserError
from ..eval.io import record
from ..storage import WeightsError, load_json
from .reading import Run

USAGE_FILE, GATES_FILE, DEMO_FILE = "usage.json", "gates.json", "results.json"
_DEEPEST = 3
_SKIPPED = (".", "checkpoint-", "superseded-")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One score record of `tove eval`."""

    folder: Path
    record: dict[str, Any]

    @property
    def model(self) -> str:
        """Name of the model that was asked; the folder's where answers came without a model."""
        model = self.record.get("model")
        return str(model.get("id")) if isinstance(model, dict) and model.get("id") else self.folder.name


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A JSON file of another command, with the folder that it lies in."""

    folder: Path
    report: dict[str, Any]


def find_evaluations(runs: Sequence[Run], given: Sequence[str | Path] = ()) -> list[Evaluation]:
    """Records in the runs' folders, those beside them that are about them, and the given ones.

    Args:
        runs: Their folders are looked through.
        given: Folders that are or hold folders of `tove eval`.

    Raises:
        UserError: A given folder has no record, or a record cannot be read.
    """
    own = [folder for run in runs for folder in _holding(run.folder, record.FILE_NAME)]
    named = [folder for path in given for folder in _given(path, record.FILE_NAME, "--eval", "tove eval")]
    beside = []
    for run in runs:
        for folder in _holding(run.folder.parent, record.FILE_NAME):
            if folder not in own and folder not in named and _is_of(folder, run):
                beside.append(folder)
    return [Evaluation(folder=path, record=_record(path)) for path in dict.fromkeys([*own, *beside, *named])]


def find_usage(runs: Sequence[Run], given: Sequence[str | Path] = ()) -> list[Measured]:
    """Reports of `tove usage` in the runs' folders, and the given ones.

    Raises:
        UserError: A given folder has none, or one cannot be read.
    """
    return _measured(runs, given, USAGE_FILE, "--usage", "tove usage", "gate_mass")


def find_gates(runs: Sequence[Run], given: Sequence[str | Path] = ()) -> list[Measured]:
    """What `tove gates` wrote in the runs' folders, and the given ones.

    Raises:
        UserError: A given folder has none, or one cannot be read.
    """
    return _measured(runs, given, GATES_FILE, "--gates", "tove gates", None)


def find_demos(runs: Sequence[Run]) -> list[Measured]:
    """Held-out results of `tove demo` in the folders that the runs lie in; what else has that name is passed over."""
    found = []
    for folder in dict.fromkeys(run.folder.parent for run in runs):
        try:
            report = load_json(folder / DEMO_FILE)
            if all(isinstance(part["families"], dict) for part in (report["chance"], *report["variants"].values())):
                found.append(Measured(folder=folder, report=report))
        except (WeightsError, KeyError, TypeError, AttributeError):
            continue
    return found


def panels(gates: Measured) -> list[tuple[str, Path]]:
    """Image file and panel of each picture that `tove gates` drew, in order.

    Raises:
        UserError: The folder is not whole.
    """
    found = []
    for number, image in enumerate(gates.report["images"]):
        files = sorted(gates.folder.glob(f"{number:03d}-*.png"))
        if not files:
            raise UserError(
                f"`{gates.folder}` has no panel {number:03d}-*.png of its {GATES_FILE}; run `tove gates` again"
            )
        found.append((str(image["image"]), files[0]))
    return found


def _measured(
    runs: Sequence[Run], given: Sequence[str | Path], name: str, option: str, command: str, figure: str | None
) -> list[Measured]:
    own = [folder for run in runs for folder in _holding(run.folder, name)]
    named = [folder for path in given for folder in _given(path, name, option, command)]
    found = [Measured(folder=folder, report=load_json(folder / name)) for folder in dict.fromkeys([*own, *named])]
    for one in found:
        _check(one, name, command, figure)
    return found


def _check(one: Measured, name: str, command: str, figure: str | None) -> None:
    """Whether a report has what is shown of it."""
    experts, images = one.report.get("experts"), one.report.get("images")
    if figure is not None:
        fits = isinstance(experts, dict) and all(isinstance(row, dict) and figure in row for row in experts.values())
    else:
        fits = isinstance(images, list) and all(isinstance(image, dict) and "image" in image for image in images)
    if not fits:
        raise UserError(f"`{one.folder / name}` is not what `{command}` writes; run it again, or name another folder")


def _given(path: str | Path, name: str, option: str, command: str) -> list[Path]:
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{option} `{path}` is no folder; name one that `{command}` wrote")
    found = list(_holding(folder.resolve(), name))
    if not found:
        raise UserError(f"{option} `{path}` has no {name} in it; name a folder that `{command}` wrote")
    return found


def _holding(folder: Path, name: str, depth: int = _DEEPEST) -> Iterator[Path]:
    """The folder and those in it that have a file of this name. Links to folders are not followed."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:  # beside a run may lie what is nobody's to read
        return
    if folder / name in entries:
        yield folder
        return
    for entry in entries if depth else ():
        if not entry.name.startswith(_SKIPPED) and entry.is_dir() and not entry.is_symlink():
            yield from _holding(entry, name, depth - 1)


def _is_of(folder: Path, run: Run) -> bool:
    """Whether a folder of `tove eval` is about the model of a run."""
    try:
        model = record.load(folder).get("model")
    except UserError:
        return False
    return isinstance(model, dict) and model.get("id") == run.folder.name


def _record(folder: Path) -> dict[str, Any]:
    found = record.load(folder)
    groups = found.get("groups", {})
    blocks = [found["metrics"], groups, *(groups.values() if isinstance(groups, dict) else ())]
    if all(isinstance(block, dict) for block in blocks) and isinstance(found.get("task"), str):
        return found
    raise UserError(f"`{folder / record.FILE_NAME}` is no score record of `tove eval`")
