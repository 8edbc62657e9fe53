"""A cache without what nobody reads: `tove cache prune`.

A shard is never changed: what is worth keeping of it goes into a new one, and then its files go, the index first. A
kill at any moment leaves entries twice at worst, which the next run of it mends. Shards that a process is writing are
left alone, and whoever reads one that goes still has it mapped.

See docs/design.md, "Expert cache".
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ..errors import UserError
from ..storage import clear_leftovers, told_disk_errors
from .folder import GB, PART_FILE, CacheFolder
from .shard import DATA, DATA_HEADER, INDEX, ShardReader, ShardWriter
from .survey import PartFiles, unused

_TOGETHER = 64
"""Records that are copied at once."""


@dataclass
class Pruned:
    """What became of a cache."""

    bytes_before: int = 0
    bytes_after: int = 0
    dropped_parts: list[str] = field(default_factory=list)
    repeated: int = 0
    """Entries of images that were kept twice."""
    damaged: int = 0
    """Records that were not as they were written."""
    outdated_shards: int = 0
    """Shards that went for the size."""
    in_use: int = 0
    """Shards that a process is writing, left alone."""
    left_alone: list[str] = field(default_factory=list)
    """Files that are not the cache's."""


def prune(
    folder: CacheFolder,
    *,
    drop: Sequence[str] = (),
    size_gb: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pruned:
    """Remove repeated and damaged records and what killed processes left, then whole parts and old shards if asked to.

    Args:
        folder: The cache.
        drop: Folders of parts, or names of backbones, that go as a whole.
        size_gb: Remove the oldest shards, in units of 10^9 bytes, until no more is left.
        progress: Told how many parts are done, of how many.

    Raises:
        UserError: There is no part of a name in `drop`; or the disk is full or refuses.
    """
    report = Pruned(bytes_before=folder.num_bytes())
    parts = folder.parts()
    dropped = _chosen(parts, drop)
    with told_disk_errors(folder.path):
        for number, path in enumerate(parts):
            clear_leftovers(path)
            if path in dropped:
                _drop(path, report)
            else:
                _tidy(path, report)
            if progress is not None:
                progress(number + 1, len(parts))
        if size_gb is not None:
            _shrink(folder, int(size_gb * GB), report)
    report.bytes_after = folder.num_bytes()
    return report


def _chosen(parts: Sequence[Path], drop: Sequence[str]) -> set[Path]:
    names = {path: {path.name} for path in parts}
    for path in parts:
        with contextlib.suppress(UserError):
            names[path].add(str(PartFiles.read(path).description.get("name")))
    for name in drop:
        if not any(name in known for known in names.values()):
            every = ", ".join(sorted({one for known in names.values() for one in known}))
            raise UserError(f"the expert cache has no part `{name}`; expected one of {every or 'none, it is empty'}")
    return {path for path, known in names.items() if known & set(drop)}


def _drop(path: Path, report: Pruned) -> None:
    before = report.in_use
    for index in [file for file in path.iterdir() if file.suffix == INDEX]:
        with unused(index) as is_free:
            report.in_use += not is_free
            if is_free:
                _remove(index)
    if report.in_use == before:
        (path / PART_FILE).unlink()
        report.dropped_parts.append(path.name)
        with contextlib.suppress(OSError):  # something foreign is in it
            path.rmdir()


def _tidy(path: Path, report: Pruned) -> None:
    try:
        files = PartFiles.read(path)
    except UserError as error:
        report.left_alone.append(str(error))
        return
    seen: set[bytes] = set()
    writer: ShardWriter | None = None
    for index in files.indexes():
        with unused(index) as is_free:
            if not is_free:
                report.in_use += 1
                continue
            try:
                shard = files.open(index)
                entries = shard.new_entries()
            except (UserError, OSError) as error:
                if index.stat().st_size and index.with_suffix(DATA).exists():
                    report.left_alone.append(str(error))
                else:
                    _remove(index)
                continue
            kept = _worth_keeping(shard, entries, seen, report)
            if len(kept) == len(entries) and _is_tight(shard, len(entries)):
                continue
            if len(kept):
                writer = writer or ShardWriter(path, files.key, files.codec.record_bytes)
                _copy(shard, kept, writer)
            _remove(index)
    if writer is not None:
        writer.close()
    for data in [file for file in path.iterdir() if file.suffix == DATA and not file.with_suffix(INDEX).exists()]:
        with unused(data) as is_free:
            if is_free:
                data.unlink(missing_ok=True)


def _worth_keeping(shard: ShardReader, entries: np.ndarray, seen: set[bytes], report: Pruned) -> np.ndarray:
    row_R, kept = torch.empty(shard.record_bytes, dtype=torch.uint8), np.zeros(len(entries), bool)
    for place, entry in enumerate(entries):
        key = entry["key"].tobytes()
        if key in seen:
            report.repeated += 1
        elif shard.read(int(entry["record"]), int(entry["crc"]), row_R):
            kept[place] = True
            seen.add(key)
        else:
            report.damaged += 1
    return entries[kept]


def _is_tight(shard: ShardReader, num_records: int) -> bool:
    size = shard.data.stat().st_size
    return shard.seen == shard.read_to and size == DATA_HEADER + num_records * shard.record_bytes


def _copy(shard: ShardReader, entries: np.ndarray, writer: ShardWriter) -> None:
    for at in range(0, len(entries), _TOGETHER):
        some = entries[at : at + _TOGETHER]
        records_MR = torch.empty(len(some), shard.record_bytes, dtype=torch.uint8)
        for row_R, entry in zip(records_MR, some, strict=True):
            if not shard.read(int(entry["record"]), int(entry["crc"]), row_R):
                raise UserError(f"`{shard.data}` has changed while it was read; run it again")
        writer.append([entry["key"].tobytes() for entry in some], records_MR)


def _shrink(folder: CacheFolder, limit: int, report: Pruned) -> None:
    indexes = [file for path in folder.parts() for file in path.iterdir() if file.suffix == INDEX]
    for index in sorted(indexes, key=lambda file: (file.stat().st_mtime_ns, file.name)):
        if folder.num_bytes() <= limit:
            return
        with unused(index) as is_free:
            report.in_use += not is_free
            if is_free:
                _remove(index)
                report.outdated_shards += 1


def _remove(index: Path) -> None:
    for file in (index, index.with_suffix(DATA)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file)
