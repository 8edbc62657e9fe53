"""Which image's record is where: a part's index in memory, 40 bytes an image.

Most entries stand in one sorted array; the newest in a dictionary that is folded into it when it has grown.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("record", "<u8"), ("crc", "<u4"), ("shard", "<u4")])
_FOLD_AT = 1 << 16


class Place(NamedTuple):
    """Where a record is said to be."""

    shard: int
    record: int
    crc: int


class KeyTable:
    """Image key (16 bytes) -> places. An image may have several: two processes wrote it, or one was damaged."""

    def __init__(self) -> None:
        self._sorted = np.zeros(0, _ROW)
        self._high = np.zeros(0, "<u8")  # a field of `_sorted` would be copied whole by each search
        self._recent: dict[bytes, list[Place]] = {}
        self._num_recent = 0

    def __len__(self) -> int:
        """Number of entries, those of one image counted each."""
        return len(self._sorted) + self._num_recent

    def add(self, found: Sequence[tuple[int, np.ndarray]]) -> None:
        """Take up entries.

        Args:
            found: (number of the shard, its entries) pairs, see `shard.ENTRY`.
        """
        if sum(len(entries) for _, entries in found) > _FOLD_AT:
            self._fold([_rows(shard, entries) for shard, entries in found])
            return
        for shard, entries in found:
            for entry in entries:
                place = Place(shard, int(entry["record"]), int(entry["crc"]))
                self._recent.setdefault(entry["key"].tobytes(), []).append(place)
                self._num_recent += 1
        if self._num_recent > _FOLD_AT:
            self._fold([])

    def find(self, key: bytes) -> list[Place]:
        """Where an image's record may be, the newest first; empty for one that was never kept."""
        places = self._recent.get(key, [])[::-1]
        high, low = np.frombuffer(key, "<u8")
        at = int(np.searchsorted(self._high, high))
        while at < len(self._high) and self._high[at] == high:
            row = self._sorted[at]
            if row["low"] == low:
                places.append(Place(int(row["shard"]), int(row["record"]), int(row["crc"])))
            at += 1
        return places

    def num_images(self) -> int:
        """Number of different images."""
        self._fold([])
        rows = self._sorted
        if not len(rows):
            return 0
        return 1 + int(((rows["high"][1:] != rows["high"][:-1]) | (rows["low"][1:] != rows["low"][:-1])).sum())

    def _fold(self, more: list[np.ndarray]) -> None:
        if self._recent:
            flat = [(key, place) for key, places in self._recent.items() for place in places]
            rows = np.zeros(len(flat), _ROW)
            halves = np.frombuffer(b"".join(key for key, _ in flat), "<u8").reshape(-1, 2)
            rows["high"], rows["low"] = halves[:, 0], halves[:, 1]
            for field in ("record", "crc", "shard"):
                rows[field] = [getattr(place, field) for _, place in flat]
            more = [rows, *more]
        if more:
            together = np.concatenate([self._sorted, *more])
            self._sorted = together[np.lexsort((together["low"], together["high"]))]
            self._high = np.ascontiguousarray(self._sorted["high"])
        self._recent, self._num_recent = {}, 0


def _rows(shard: int, entries: np.ndarray) -> np.ndarray:
    rows = np.zeros(len(entries), _ROW)
    halves = np.ascontiguousarray(entries["key"]).view("<u8").reshape(-1, 2)
    rows["high"], rows["low"], rows["shard"] = halves[:, 0], halves[:, 1], shard
    rows["record"], rows["crc"] = entries["record"], entries["crc"]
    return rows
