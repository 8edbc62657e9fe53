"""One part of the cache: the features that one backbone gave, in the shards of all processes that ever wrote some.

Shapes: B images, R bytes of a record.

See docs/design.md, "Expert cache".
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..errors import UserError
from ..storage import disk_reason
from .codec import Codec
from .folder import CacheFolder
from .shard import INDEX, INDEX_HEADER, ForeignShardError, ShardReader, ShardWriter
from .table import KeyTable

logger = logging.getLogger(__name__)

SHARD_BYTES = 4 << 30
"""Size from which a process goes on in a new shard."""


class Found(NamedTuple):
    """What is kept for a batch."""

    records_BR: torch.Tensor
    """uint8, on the CPU; rows of missing images hold anything."""
    missing: list[int]
    """Places in the batch."""


class PartStore:
    """See the module's docstring.

    Args:
        folder: The whole cache.
        key_hex: Of the part, 64 hex digits.
        codec: How its features are kept.
        description: For part.json, and in messages its `name`.
    """

    def __init__(self, folder: CacheFolder, key_hex: str, codec: Codec, description: dict[str, Any]):
        self.cache, self.codec, self.name = folder, codec, description["name"]
        self.key = bytes.fromhex(key_hex)
        self.path = folder.part(key_hex, description)
        self._table = KeyTable()
        self._shards: list[ShardReader] = []
        self._known: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._told_damaged: set[int] = set()
        self._writer: ShardWriter | None = None
        self.refresh()

    def refresh(self) -> None:
        """Take up what other processes have added."""
        for index in self._new_indexes():
            try:
                self._shards.append(ShardReader(index, self.key, self.codec.record_bytes))
                self._numbers[index.stem] = len(self._shards) - 1
            except (ForeignShardError, OSError) as error:
                logger.warning("expert cache %s: left out: %s", self.cache.path, error)
        found = []
        for number, shard in enumerate(self._shards):
            if self._writer is None or shard.index != self._writer.index:
                try:
                    found.append((number, shard.new_entries()))
                except OSError:  # pruned by another process
                    continue
        self._table.add([(number, entries) for number, entries in found if len(entries)])

    def _new_indexes(self) -> list[Path]:
        try:
            indexes = sorted(path for path in self.path.iterdir() if path.suffix == INDEX)
        except OSError:  # there is no such folder, and it cannot be made
            return []
        new = [path for path in indexes if path.name not in self._known and path.stat().st_size >= INDEX_HEADER]
        self._known |= {path.name for path in new}
        return new

    def num_images(self) -> int:
        """Number of images that have an entry."""
        return self._table.num_images()

    def get(self, keys: Sequence[bytes]) -> Found:
        """Records of a batch.

        Args:
            keys: 16 bytes for each image.
        """
        records_BR = torch.empty(len(keys), self.codec.record_bytes, dtype=torch.uint8)
        missing = [row for row, key in enumerate(keys) if not self._read(key, records_BR[row])]
        if missing:
            self.refresh()
            missing = [row for row in missing if not self._read(keys[row], records_BR[row])]
        return Found(records_BR, missing)

    def _read(self, key: bytes, row_R: torch.Tensor) -> bool:
        for place in self._table.find(key):
            if self._shards[place.shard].read(place.record, place.crc, row_R):
                return True
            if place.shard not in self._told_damaged:
                self._told_damaged.add(place.shard)
                logger.warning(
                    "expert cache: `%s` is damaged or cut short; what cannot be read is computed again (tove cache "
                    "verify lists it, tove cache prune removes it)",
                    self._shards[place.shard].data,
                )
        return False

    def put(self, keys: Sequence[bytes], records_BR: torch.Tensor) -> None:
        """Add records, or none where the limit is reached or the disk refuses, which is logged once.

        Args:
            keys: 16 bytes for each image; of equal ones the first counts.
            records_BR: uint8, on the CPU.
        """
        rows = list({key: row for row, key in reversed(list(enumerate(keys)))}.values())[::-1]
        if not rows or not self.cache.takes(len(rows) * self.codec.record_bytes):
            return
        try:
            if self._writer is None or self._writer.num_bytes > SHARD_BYTES:
                self._start_shard()
            assert self._writer is not None
            entries = self._writer.append([keys[row] for row in rows], records_BR[rows])
        except (OSError, UserError) as error:
            self.cache.stop(disk_reason(error) or str(error))
            return
        self._table.add([(self._numbers[self._writer.id], entries)])

    def _start_shard(self) -> None:
        self.close()
        for tries_left in (2, 1, 0):
            try:
                self._writer = ShardWriter(self.path, self.key, self.codec.record_bytes)
                break
            except UserError:  # another process that clears leftovers may have taken the new lock for one
                if not tries_left:
                    raise
        assert self._writer is not None
        self._shards.append(ShardReader(self._writer.index, self.key, self.codec.record_bytes))
        self._known.add(self._writer.index.name)
        self._numbers[self._writer.id] = len(self._shards) - 1

    def close(self) -> None:
        """Give the shard that is being written free for others to prune."""
        if self._writer is not None:
            self._shards[self._numbers[self._writer.id]].skip_to_end()
            self._writer.close()
            self._writer = None
