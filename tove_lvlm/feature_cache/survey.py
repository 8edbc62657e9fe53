"""What a cache holds, and whether it is as it was written: `tove cache stat` and `verify`. Nothing is changed.

See docs/design.md, "Expert cache".
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..storage import load_json
from ..storage.locks import lock_name
from .codec import DTYPES, Codec
from .folder import PART_FILE, CacheFolder
from .shard import DATA, ENTRY, INDEX, INDEX_HEADER, ForeignShardError, ShardReader
from .table import KeyTable


@dataclass
class PartSurvey:
    """One backbone's features."""

    folder: str
    """Its name within the cache, by which `prune --drop` knows it."""
    name: str = ""
    """What the tower that made it called the backbone."""
    about: dict[str, Any] = field(default_factory=dict)
    """`dtype`, `compute`, `shape` and `settings` of its part.json."""
    images: int = 0
    entries: int = 0
    """More than `images` where several processes kept the same ones."""
    bytes: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PartFiles:
    """A part as it lies there."""

    path: Path
    key: bytes
    codec: Codec
    description: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "PartFiles":
        """From its part.json.

        Args:
            path: Folder of the part.

        Raises:
            UserError: The file is not what this version writes.
        """
        content = load_json(path / PART_FILE)
        stored = str(content.get("dtype"))
        try:
            key = bytes.fromhex(content["key"])
            sizes = tuple(int(size) for size in content["shape"])
            axis = int(content["channel_axis"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"`{path / PART_FILE}` does not describe a part of an expert cache: {error!r}") from error
        if stored not in DTYPES or len(key) != 32 or not 0 < len(sizes) < 4 or min(sizes) < 1 or axis not in (-1, 0):
            raise UserError(f"`{path / PART_FILE}` does not describe a part of an expert cache")
        return cls(path, key, Codec(stored, sizes, axis), content)

    def indexes(self) -> list[Path]:
        """All that may be a shard's index."""
        return sorted(path for path in self.path.iterdir() if path.suffix == INDEX)

    def open(self, index: Path) -> ShardReader:
        """A shard.

        Args:
            index: From `indexes`.

        Raises:
            UserError: It is no shard of this part, or its data is missing.
        """
        try:
            return ShardReader(index, self.key, self.codec.record_bytes)
        except FileNotFoundError as error:
            raise UserError(f"`{index}` has no {DATA} file beside it") from error


@contextlib.contextmanager
def unused(index: Path) -> Iterator[bool]:
    """Whether no process is writing a shard; none can begin to while inside.

    Args:
        index: Its index.
    """
    try:
        context = lock_name(index.with_suffix(DATA))
        is_locked = context.__enter__()
    except UserError:
        yield False
        return
    try:
        yield is_locked
    finally:
        context.__exit__(None, None, None)


def survey(
    folder: CacheFolder, *, read_records: bool = False, progress: Callable[[int, int], None] | None = None
) -> list[PartSurvey]:
    """Look at every part.

    Args:
        folder: The cache.
        read_records: Compare every record with its checksum.
        progress: Told how many bytes of the records have been read, of how many.
    """
    found, done, total = [], 0, folder.num_bytes()

    def read(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        if progress is not None:
            progress(min(done, total), total)

    for path in folder.parts():
        part = PartSurvey(path.name, bytes=sum(file.stat().st_size for file in path.iterdir() if _is_ours(file)))
        found.append(part)
        try:
            files = PartFiles.read(path)
        except UserError as error:
            part.problems.append(str(error))
            continue
        part.name = str(files.description.get("name", ""))
        part.about = {key: files.description.get(key) for key in ("dtype", "compute", "shape", "settings")}
        table = KeyTable()
        for number, index in enumerate(files.indexes()):
            _look_at_shard(files, index, number, table, part, read if read_records else None)
        part.entries, part.images = len(table), table.num_images()
    return found


def _is_ours(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".")  # neither a lock nor what is being written


def _look_at_shard(
    files: PartFiles, index: Path, number: int, table: KeyTable, part: PartSurvey, read: Callable[[int], None] | None
) -> None:
    try:
        if index.stat().st_size < INDEX_HEADER:
            raise ForeignShardError(f"`{index}` is cut short")
        shard = files.open(index)
        entries = shard.new_entries()
    except (UserError, OSError) as error:
        part.problems.append(str(error))
        return
    table.add([(number, entries)])
    with unused(index) as is_free:
        if shard.seen != shard.read_to and is_free:
            part.problems.append(
                f"`{index}`: the last {shard.seen - shard.read_to} bytes are no whole block: a killed process left "
                "them, or they are damaged"
            )
    if read is not None:
        row_R = torch.empty(files.codec.record_bytes, dtype=torch.uint8)
        bad = 0
        for entry in entries:
            bad += not shard.read(int(entry["record"]), int(entry["crc"]), row_R)
            read(len(row_R) + ENTRY.itemsize)
        if bad:
            part.problems.append(f"`{shard.data}`: {bad} of {len(entries)} records are not as they were written")


def as_json(parts: list[PartSurvey]) -> list[dict[str, Any]]:
    """Plain values.

    Args:
        parts: From `survey`.
    """
    return [asdict(part) for part in parts]
