"""Where a benchmark's files are: LLaVA's folders and the official sites' own packing, below one root."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...config import UserError
from ...storage import load_json


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where one packaging of a benchmark keeps its files, relative to a root folder; patterns as `Path.glob` takes."""

    labels: tuple[str, ...]
    """Every pattern must match at least one file."""
    images: str
    """The image folder."""


class Packaged(Protocol):
    """What must be known of a benchmark to look for its files; a task's class has it."""

    name: str
    source: str
    """Where to get the files, for people."""
    layouts: tuple[Layout, ...]
    """In the order in which they are looked for."""


@dataclass(frozen=True, kw_only=True)
class DataLocation:
    """One layout of a benchmark below a root folder."""

    labels: tuple[Path, ...]
    """Label files that are there, in the layout's order."""
    missing: tuple[str, ...]
    """Patterns of label files that match nothing."""
    images: Path
    """The image folder, which may not be there."""

    @property
    def has_labels(self) -> bool:
        """Whether all label files are there."""
        return not self.missing

    @property
    def is_complete(self) -> bool:
        """Whether there is all that a model needs to be asked."""
        return self.has_labels and self.images.is_dir()

    def missing_files(self, images: bool = True) -> list[str]:
        """What is not there, for messages; `images` says whether the image folder is wanted."""
        return [*self.missing, *([f"{self.images}/"] if images and not self.images.is_dir() else [])]


def data_locations(task: Packaged, root: str | Path) -> list[DataLocation]:
    """What is there of a benchmark, for each of its layouts in their order."""
    return [_look(layout, Path(root)) for layout in task.layouts]


def find(task: Packaged, root: str | Path, images: bool = True) -> DataLocation:
    """The first layout of a benchmark that is there.

    Args:
        task: The benchmark.
        root: Folder that holds `playground`, or the official site's files.
        images: Whether the image folder is wanted; without, label files are enough.

    Raises:
        UserError: There is none; says what is missing and where to get it.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"data folder `{root}` does not exist (given as --data)")
    looked = data_locations(task, root)
    usable = next(
        (candidate for candidate in looked if (candidate.is_complete if images else candidate.has_labels)), None
    )
    if usable is None:
        best = nearest_location(looked)
        raise UserError(
            f"{task.name} is not below `{root}`: missing {', '.join(best.missing_files(images))}; get it from "
            f"{task.source}, or give --labels and --images (`tove eval --list` shows what is there)"
        )
    return usable


def asked_prompt(name: str, root: str | Path) -> str | None:
    """How the data below a root want a task to be asked: the miniature's own benchmarks say so; others do not."""
    path = Path(root) / "benchmarks.json"
    return load_json(path)["asked"].get(name) if path.is_file() else None


def nearest_location(looked: list[DataLocation]) -> DataLocation:
    """Of several layouts the one that lacks least; among equals the first that has something."""
    return min(looked, key=lambda candidate: (len(candidate.missing_files()), not candidate.labels))


def _look(layout: Layout, root: Path) -> DataLocation:
    labels: list[Path] = []
    missing = []
    for pattern in layout.labels:
        matched = sorted(path for path in root.glob(pattern) if path.is_file())
        labels += matched
        if not matched:
            missing.append(str(root / pattern))
    return DataLocation(labels=tuple(labels), missing=tuple(missing), images=root / layout.images)
