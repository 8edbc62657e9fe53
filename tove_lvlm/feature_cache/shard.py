"""A shard: two files that are only ever added to, by the one process that made them.

    ID.data    header of 4096 bytes, then records of one fixed size, mapped into memory to be read
    ID.index   header of 64 bytes, then blocks: magic, number of entries, CRC-32 of the entries; 32 bytes an entry:
               image key (16), number of the record (8), CRC-32 of the record (4), zeros (4)

A batch's records are written first and its block of entries after them. A block is valid when it is complete and its
checksum fits, so what a kill at any byte leaves is all of a batch or nothing of it; a record is valid when its own
checksum fits, which also tells what a power cut or a bad disk made of it. Both headers hold the key of the part (see
`identity`), so that a file of another tower, or of something else, is told at once. All numbers are little-endian.

Shapes: M records, R bytes of a record.

See docs/design.md, "Expert cache".
"""

import contextlib
import os
import secrets
import struct
import weakref
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..errors import UserError
from ..storage.locks import lock_name

DATA, INDEX = ".data", ".index"
DATA_HEADER, INDEX_HEADER = 4096, 64
ENTRY = np.dtype([("key", "V16"), ("record", "<u8"), ("crc", "<u4"), ("pad", "<u4")])
_HEADER = struct.Struct("<8sIQ32sI")
_BLOCK = struct.Struct("<4sII")
_MAGIC = {DATA: b"TOVEDATA", INDEX: b"TOVEINDX"}
_BLOCK_MAGIC = b"BLCK"
_VERSION = 1


class ForeignShardError(UserError):
    """A file in the cache is no shard of this part; the message names it."""


def _header(kind: str, part_key: bytes, record_bytes: int) -> bytes:
    content = _HEADER.pack(_MAGIC[kind], _VERSION, record_bytes, part_key, 0)[:-4]
    size = DATA_HEADER if kind == DATA else INDEX_HEADER
    return (content + struct.pack("<I", zlib.crc32(content))).ljust(size, b"\0")


def check_header(path: Path, part_key: bytes, record_bytes: int) -> None:
    """Whether a file is a shard's, of this part.

    Args:
        path: ID.data or ID.index.
        part_key: 32 bytes, see `identity`.
        record_bytes: R.

    Raises:
        ForeignShardError: It is not.
        OSError: It cannot be read.
    """
    expected = _header(path.suffix, part_key, record_bytes)
    with open(path, "rb") as file:
        if file.read(len(expected)) != expected:
            raise ForeignShardError(f"`{path}` is no shard of this backbone's features: its header is another")


class ShardWriter:
    """Adds records to a new shard, which is locked until `close`, or until nobody holds the writer any more.

    Args:
        folder: The part's.
        part_key: 32 bytes.
        record_bytes: R.

    Raises:
        OSError, UserError: The folder cannot be written.
    """

    def __init__(self, folder: Path, part_key: bytes, record_bytes: int):
        self.id = secrets.token_hex(8)
        self.data, self.index = folder / f"{self.id}{DATA}", folder / f"{self.id}{INDEX}"
        self.record_bytes, self.num_records = record_bytes, 0
        with contextlib.ExitStack() as stack:
            stack.enter_context(lock_name(self.data))
            self._files = []
            for path in (self.data, self.index):
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
                stack.callback(os.close, handle)
                self._files.append(handle)
                _write(handle, memoryview(_header(path.suffix, part_key, record_bytes)))
            self.close = weakref.finalize(self, _close, stack.pop_all(), os.getpid())

    def append(self, keys: Sequence[bytes], records_MR: torch.Tensor) -> np.ndarray:
        """Write records and their entries, all or none.

        Args:
            keys: 16 bytes for each image.
            records_MR: uint8.

        Returns:
            The entries, (M,) ENTRY.

        Raises:
            OSError: The disk is full, or worse; what was written in part is cut off again, as far as the disk allows.
        """
        rows = records_MR.numpy()
        entries = np.zeros(len(keys), ENTRY)
        entries["key"] = np.frombuffer(b"".join(keys), "V16")
        entries["record"] = np.arange(self.num_records, self.num_records + len(keys))
        entries["crc"] = [zlib.crc32(row.data) for row in rows]
        content = entries.tobytes()
        block = _BLOCK.pack(_BLOCK_MAGIC, len(entries), zlib.crc32(content)) + content
        before = [os.fstat(handle).st_size for handle in self._files]
        try:
            _write(self._files[0], rows.data.cast("B"))
            _write(self._files[1], memoryview(block))
        except OSError:
            for handle, size in zip(self._files, before, strict=True):
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, size)
            raise
        self.num_records += len(keys)
        return entries

    @property
    def num_bytes(self) -> int:
        """Size of the data file."""
        return DATA_HEADER + self.num_records * self.record_bytes


def _close(stack: contextlib.ExitStack, pid: int) -> None:
    if os.getpid() == pid:  # not in a worker that was forked meanwhile
        stack.close()


def _write(handle: int, content: memoryview) -> None:
    while content:
        content = content[os.write(handle, content) :]


class ShardReader:
    """Entries and records of a shard that another process may still be adding to.

    Args:
        index: ID.index.
        part_key: 32 bytes.
        record_bytes: R.

    Raises:
        ForeignShardError: One of the two files is no shard of this part.
        OSError: One cannot be read.
    """

    def __init__(self, index: Path, part_key: bytes, record_bytes: int):
        self.index, self.data, self.record_bytes = index, index.with_suffix(DATA), record_bytes
        for path in (self.index, self.data):
            check_header(path, part_key, record_bytes)
        self.read_to = INDEX_HEADER
        """End of the last valid block."""
        self.seen = 0
        """Size of the index when it was last read; more than `read_to` where its end is torn."""
        self._mapped = torch.zeros(0, dtype=torch.uint8)

    def new_entries(self) -> np.ndarray:
        """The entries that have come since the last call, (M,) ENTRY.

        Raises:
            OSError: The index cannot be read.
        """
        size = os.stat(self.index).st_size
        if size == self.seen:
            return np.zeros(0, ENTRY)
        with open(self.index, "rb") as file:
            file.seek(self.read_to)
            content = file.read()
        self.seen, at, blocks = size, 0, [np.zeros(0, ENTRY)]
        while (entries := _block(content, at)) is not None:
            blocks.append(entries)
            at += _BLOCK.size + entries.nbytes
        self.read_to += at
        return np.concatenate(blocks)

    def skip_to_end(self) -> None:
        """Take all entries that are there for known, as whoever wrote them does."""
        self.read_to = self.seen = os.stat(self.index).st_size

    def read(self, record: int, crc: int, row_R: torch.Tensor) -> bool:
        """Copy a record into `row_R`; whether it is there and as it was written.

        Args:
            record: Its number.
            crc: Its checksum.
            row_R: uint8, on the CPU.
        """
        start = DATA_HEADER + record * self.record_bytes
        end = start + self.record_bytes
        if not self._reaches(end):
            return False
        row_R.copy_(self._mapped[start:end])
        return zlib.crc32(row_R.numpy().data) == crc

    def _reaches(self, end: int) -> bool:
        """Whether the file, mapped as far as needed, has this byte: to touch one that is gone would end the process."""
        try:
            size = os.stat(self.data).st_size
            if size >= end > len(self._mapped):
                self._mapped = torch.from_file(str(self.data), shared=False, size=size, dtype=torch.uint8)
        except FileNotFoundError:  # pruned by another process; what is mapped is still there
            size = len(self._mapped)
        except (OSError, RuntimeError):
            return False
        return end <= min(size, len(self._mapped))


def _block(content: bytes, at: int) -> np.ndarray | None:
    """The entries of the block there; None where there is no valid one."""
    if at + _BLOCK.size > len(content):
        return None
    magic, count, crc = _BLOCK.unpack_from(content, at)
    start = at + _BLOCK.size
    end = start + count * ENTRY.itemsize
    if magic != _BLOCK_MAGIC or end > len(content) or zlib.crc32(content[start:end]) != crc:
        return None
    return np.frombuffer(content[start:end], ENTRY)
