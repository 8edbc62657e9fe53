"""Data files as the entries that they hold, and an entry as LLaVA's sample."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .errors import DataError

Reader = Callable[[Sequence[Path]], Iterable[tuple[Path, Any]]]
"""Gives the entries of files, each with the file that it is in."""
Place = tuple[int, int]
"""Where an image lies in a file that holds it: offset and size in bytes in a shard, row and number in a table."""


class StoredSample(NamedTuple):
    """A sample of a file that holds its images."""

    sample: dict[str, Any]
    """LLaVA's; its images are called as they are in the file."""
    places: list[Place | None]
    """Of each image; None for one that lies in the image folder all the same."""


def each(read: Callable[[Path], Iterable[Any]]) -> Reader:
    """The reader of a format whose files are read one after the other."""

    def of_all(files: Sequence[Path]) -> Iterator[tuple[Path, Any]]:
        for file in files:
            for entry in read(file):
                yield file, entry

    return of_all


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
    """Entries of a JSON file that holds a list, or of JSON lines, whatever the file's ending.

    Raises:
        DataError: It is not valid or empty.
        FileNotFoundError: It is missing.
    """
    text = read_text(path)
    if path.suffix == ".jsonl" or _is_lines(text):
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


def _is_lines(text: str) -> bool:
    """Whether a text is more than one JSON object, one after the other on lines of their own."""
    first, _, rest = text.lstrip().partition("\n")
    if not first.startswith("{") or not rest.strip():
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def read_object(path: Path, *keys: str) -> dict[str, Any]:
    """A file that is one JSON object, with a list under at least one of these keys.

    Raises:
        DataError: It is not, or has none of them.
        FileNotFoundError: It is missing.
    """
    text = read_text(path)
    try:
        found = fields_of(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise DataError(f"not valid JSON: {error}", file=path) from error
    if not any(isinstance(found.get(key), list) for key in keys):
        raise DataError(f"expected an object with the list {' or '.join(f'`{key}`' for key in keys)}", file=path)
    return found


def read_lists(path: Path, *keys: str) -> list[list[Any]]:
    """All of these lists of a file that is one JSON object.

    Raises:
        DataError: It is not, or lacks one.
        FileNotFoundError: It is missing.
    """
    found = read_object(path, *keys)
    for key in keys:
        if not isinstance(found.get(key), list):
            raise DataError(f"expected an object with the list `{key}`", file=path)
    return [found[key] for key in keys]


def fields_of(entry: Any) -> dict[str, Any]:
    """An entry's; of something else none, so that it is named as one that lacks them."""
    return entry if isinstance(entry, dict) else {}


def id_of(entry: dict[str, Any], key: str) -> str | int | None:
    """What other entries name an entry by; None where it is neither text nor a number, which nothing is found by."""
    value = entry.get(key)
    return value if isinstance(value, str | int) else None


def _parse(text: str, path: Path, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: numbers of more than 4300 digits
        raise DataError(f"{where}not valid JSON: {error}", file=path) from error


def caption_sample(sample_id: Any, image: Any, caption: Any, question: str = "") -> dict[str, Any]:
    """A LLaVA sample of one text about one image.

    Args:
        sample_id: Of the entry.
        image: Path of the image.
        caption: The text.
        question: What it answers.

    Raises:
        DataError: There is no image or no text.
    """
    if not isinstance(image, str) or not image:
        raise DataError("the entry has a text and no image", sample_id=str(sample_id))
    if not isinstance(caption, str) or not caption.strip():
        raise DataError("the entry has an image and no text", sample_id=str(sample_id))
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": caption.strip()}]
    return {"id": str(sample_id), "image": image, "conversations": turns}
