"""LLaVA JSON and JSONL files, checked and packed.

A data set of a million conversations as Python objects costs several GB, and each DataLoader worker ends up with its
own copy, because reading an object writes its reference count. Packed into one buffer it is as large as the file, and
all workers share it.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import DataError

IMAGE_WORDS = 128
"""What LLaVA's length estimate counts for an image."""


class Record(NamedTuple):
    """One sample of a file."""

    file: str
    sample_id: str
    image: str | None
    conversation: list[dict[str, str]]


class Records:
    """All samples of some files, read-only.

    Attributes:
        words: (S,) words of each sample's conversation, at least 1.
        has_image: (S,) bool.
    """

    def __init__(self) -> None:
        self.words = np.zeros(0, np.int64)
        self.has_image = np.zeros(0, bool)
        self._buffer = b""
        self._ends = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Record:
        start = self._ends[index - 1] if index else 0
        return Record(*json.loads(self._buffer[start : self._ends[index]]))

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
        entries: Callable[[Path], Iterable[Any]] | None = None,
    ) -> "Records":
        """Read files.

        Args:
            files: JSON files (a list of samples) or JSONL files (a sample per line).
            check: raises DataError for a sample that cannot be used.
            on_bad: gets the error of each sample left out; None: the first one is raised.
            convert: turns an entry of another format into a LLaVA sample; raises DataError where it cannot.
            entries: gives the entries of a file of another format; None reads JSON and JSONL.

        Raises:
            DataError: a file that is not valid, or a sample if `on_bad` is None.
            FileNotFoundError: a file is missing.
        """
        records = cls()
        pieces, ends, words, has_image = [], [], [], []
        size = 0
        for file in files:
            for index, raw in enumerate((entries or read_entries)(Path(file))):
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
                has_image.append(record.image is not None)
        records._buffer = b"".join(pieces)
        records._ends = np.array(ends, np.int64)
        records.words = np.array(words, np.int64)
        records.has_image = np.array(has_image, bool)
        return records


def read_text(path: Path) -> str:
    """A data file.

    Raises:
        DataError: It cannot be read as UTF-8.
        FileNotFoundError: It is missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"data file {path} does not exist; `data.train` must name LLaVA JSON or JSONL files")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", file=path) from error


def read_entries(path: Path) -> Iterator[Any]:
    """Entries of a JSON file that holds a list, or of a JSONL file.

    Raises:
        DataError: It is not valid or empty.
        FileNotFoundError: It is missing.
    """
    text = read_text(path)
    if path.suffix == ".jsonl":
        # Not splitlines: U+2028 and the like may stand inside a JSON string.
        numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        items = (_parse(line, path, f"line {number}: ") for number, line in numbered)
        num_items = len(numbered)
    else:
        items = _parse(text, path, "")
        if not isinstance(items, list):
            raise DataError(f"must hold a list of samples, holds {type(items).__name__}", file=path)
        num_items = len(items)
    if num_items == 0:
        raise DataError("holds no samples", file=path)
    return iter(items)


def _parse(text: str, path: Path, where: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where}not valid JSON: {error}", file=path) from error


def _id_of(raw: Any, index: int) -> str:
    sample_id = raw.get("id") if isinstance(raw, dict) else None
    return f"#{index}" if sample_id is None else str(sample_id)


def _to_record(file: str, index: int, raw: Any) -> Record:
    if not isinstance(raw, dict):
        raise DataError(f"a sample must be an object, got {type(raw).__name__}")
    image = raw.get("image")
    if image is not None and not isinstance(image, str):
        raise DataError(f"'image' must be one path, got {type(image).__name__}")
    conversation: Any = raw.get("conversations")  # whatever the file says: the check that the loader is given looks
    return Record(file, _id_of(raw, index), image, conversation)
