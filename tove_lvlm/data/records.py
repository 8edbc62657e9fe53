"""The samples of data files, checked and packed.

A sample's images stand under `image`, one path or a list, or under `images`.

A data set of a million conversations as Python objects costs several GB, and each DataLoader worker ends up with its
own copy, because reading an object writes its reference count. Packed into one buffer it is as large as the file, and
all workers share it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .entries import Place, Reader, StoredSample, each, read_entries
from .errors import DataError
from .shards import SUFFIX, read_member, read_shard
from .tables import is_table, read_cell, read_table

IMAGE_WORDS = 128
"""What LLaVA's length estimate counts for an image."""
_OTHER_KEYS = ("image_path", "image_paths", "image_file", "image_url", "img", "video", "videos", "frames")
"""Where data for other models has its pictures; a sample would train as one of text alone."""
READ_JSON: Reader = each(read_entries)
"""JSON (a list of samples) and JSONL (a sample per line)."""


class RecordImage(NamedTuple):
    """An image of a sample."""

    name: str
    """Path in the image folder, or what it is called in the sample's file."""
    place: Place | None = None
    """Where it lies in the sample's file, where that holds it."""


class Record(NamedTuple):
    """One sample of a file."""

    file: str
    sample_id: str
    images: list[RecordImage]
    conversation: list[dict[str, str]]

    def stored(self, image: RecordImage) -> bytes:
        """The content of one of the images that the file holds.

        Raises:
            DataError: The file is not there, or has changed.
        """
        if image.place is None:
            raise DataError(f"{self.file} does not hold the image {image.name}")
        if self.file.endswith(SUFFIX):
            return read_member(self.file, image.place)
        return read_cell(self.file, *image.place)


class Records:
    """All samples of some files, read-only.

    Attributes:
        words: (S,) words of each sample's conversation, at least 1.
        has_image: (S,) bool.
        shards: Samples of each file in turn where one of the files holds its images, else empty.
    """

    def __init__(self) -> None:
        self.words = np.zeros(0, np.int64)
        self.has_image = np.zeros(0, bool)
        self.shards: list[int] = []
        self._buffer = b""
        self._ends = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Record:
        start = self._ends[index - 1] if index else 0
        file, sample_id, images, conversation = json.loads(self._buffer[start : self._ends[index]])
        held = [RecordImage(name, None if place is None else (place[0], place[1])) for name, place in images]
        return Record(file, sample_id, held, conversation)

    @property
    def lengths(self) -> np.ndarray:
        """LLaVA's estimate of each sample's length: words, and 128 for an image."""
        lengths: np.ndarray = self.words + IMAGE_WORDS * self.has_image
        return lengths

    @property
    def modality_lengths(self) -> np.ndarray:
        """LLaVA's lengths for grouping: words, negative for samples without an image."""
        return np.where(self.has_image, self.words, -self.words)

    @classmethod
    def load(
        cls,
        files: list[str | Path],
        check: Callable[[Record], None],
        on_bad: Callable[[DataError], None] | None = None,
        convert: Callable[[Any], Any] | None = None,
        reader: Reader = READ_JSON,
    ) -> "Records":
        """Read files.

        Args:
            files: data files, of whatever kind the reader reads.
            check: raises DataError for a sample that cannot be used.
            on_bad: gets the error of each sample left out; None: the first one is raised.
            convert: turns an entry of another format into a LLaVA sample; raises DataError where it cannot.
            reader: gives the entries of the files.

        Raises:
            DataError: a file that is not valid, or a sample if `on_bad` is None.
            FileNotFoundError: a file is missing.
        """
        records = cls()
        pieces, ends, words, has_image = [], [], [], []
        size = 0
        num_read: Counter[Path] = Counter()
        runs: list[tuple[Path, int]] = []  # samples that follow each other in a file
        for file, raw in reader([Path(file) for file in files]):
            index, num_read[file] = num_read[file], num_read[file] + 1
            try:
                raw = raw if convert is None else convert(raw)
                record = _to_record(str(file), index, raw)
                check(record)
            except DataError as error:
                located = error.at(file=file, sample_id=_id_of(raw, index))
                if on_bad is None:
                    raise located from error
                on_bad(located)
                continue
            # json.loads reads bytes with surrogatepass too; a field that nobody reads may hold anything.
            pieces.append(json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass"))
            size += len(pieces[-1])
            ends.append(size)
            words.append(max(1, sum(len(turn["value"].split()) for turn in record.conversation)))
            has_image.append(bool(record.images))
            runs.append((file, runs.pop()[1] + 1) if runs and runs[-1][0] == file else (file, 1))
        if any(file.suffix == SUFFIX or is_table(file) for file in num_read):
            records.shards = [number for _, number in runs]
        records._buffer = b"".join(pieces)
        records._ends = np.array(ends, np.int64)
        records.words = np.array(words, np.int64)
        records.has_image = np.array(has_image, bool)
        return records


def read_samples(path: Path) -> Iterator[Any]:
    """The samples of a JSON or JSONL file, of a shard, or of a table.

    Raises:
        DataError: The file as a whole cannot be used.
        FileNotFoundError: It is missing.
    """
    if is_table(path):
        return read_table(path)
    return read_shard(path) if path.suffix == SUFFIX else read_entries(path)


READ_SAMPLES: Reader = each(read_samples)
"""The same, webdataset's shards, and tables: parquet files and folders of the library `datasets`."""


def _id_of(raw: Any, index: int) -> str | None:
    if isinstance(raw, DataError):  # it says itself what it is about: a sample, or the file
        return raw.sample_id
    raw = raw.sample if isinstance(raw, StoredSample) else raw
    sample_id = raw.get("id") if isinstance(raw, dict) else None
    return f"#{index}" if sample_id is None else str(sample_id)


def _to_record(file: str, index: int, raw: Any) -> Record:
    if isinstance(raw, DataError):
        raise raw
    raw, places = raw if isinstance(raw, StoredSample) else (raw, None)
    if not isinstance(raw, dict):
        raise DataError(f"a sample must be an object, got {type(raw).__name__}")
    names = _names(raw)
    if not names and (other := next((key for key in _OTHER_KEYS if raw.get(key)), None)):
        raise DataError(f"its picture stands under '{other}', where it is not read; expected 'image' with its path")
    images = [RecordImage(*image) for image in zip(names, places or [None] * len(names), strict=True)]
    conversation: Any = raw.get("conversations")  # whatever the file says: the check that the loader is given looks
    return Record(file, str(_id_of(raw, index)), images, conversation)


def _names(raw: dict[str, Any]) -> list[str]:
    """The paths of a sample's images."""
    if raw.get("image") and raw.get("images"):
        raise DataError("its pictures stand under 'image' and under 'images'; expected one of them")
    key = "images" if raw.get("images") else "image"
    found: Any = raw.get(key)
    names = found if isinstance(found, list) else [found] * (found is not None)
    if wrong := [name for name in names if not isinstance(name, str) or not name]:
        raise DataError(f"'{key}' must be a path or a list of paths, got {wrong[0]!r:.60}")
    return names
