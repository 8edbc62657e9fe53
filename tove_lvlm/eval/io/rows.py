"""Label and answer files as rows: JSON lines or a JSON array of objects; what cannot be read is noted.

Official files of one benchmark come in both forms, and either may end in `.json`; the content decides.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ...config import UserError
from .problems import Problems


class Row(NamedTuple):
    """One JSON object of a file."""

    source: str
    """File, and what part of it."""
    number: int
    """Line, or position in an array; from 1."""
    fields: dict[str, Any]

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.source}:{self.number}"

    def text(self, name: str) -> str:
        """A field as text; empty where it is absent or neither text nor a number."""
        value = self.fields.get(name)
        return str(value) if isinstance(value, str | int | float) else ""

    def has(self, names: Iterable[str], problems: Problems) -> bool:
        """Whether all of `names` are fields with text or a number; the first that is not is noted."""
        for name in names:
            if not isinstance(self.fields.get(name), str | int | float):
                problems.add(f"row without `{name}`", self.where)
                return False
        return True


def read_rows(path: str | Path, problems: Problems) -> list[Row]:
    """Rows of a file in its order.

    Raises:
        UserError: There is no such file, or no row in it.
    """
    content = read_json(path, problems)
    return [Row(Path(path).name, 1, content)] if isinstance(content, dict) else content


def read_json(path: str | Path, problems: Problems) -> dict[str, Any] | list[Row]:
    """The single object that a file holds, or its rows. A file of one JSON line counts as a single object.

    Raises:
        UserError: There is no such file, or nothing of the sort in it.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"file `{path}` does not exist") from error
    except UnicodeDecodeError as error:
        raise UserError(f"file `{path}` is not text in UTF-8: {error}") from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: numbers of more than 4300 digits
        if text.lstrip().startswith("["):
            raise UserError(f"file `{path}` is not readable as JSON, perhaps it is truncated: {error}") from error
        rows = _lines(path.name, text, problems)
    else:
        if isinstance(content, dict):
            return content
        rows = objects(path.name, content, problems)
    if not rows:
        raise UserError(f"file `{path}` holds no rows: expected JSON lines or a JSON array of objects")
    return rows


def objects(source: str, values: Any, problems: Problems) -> list[Row]:
    """The objects in a JSON array; anything else in it, or instead of it, is noted.

    Args:
        source: As in `Row`.
        values: The array.
        problems: For what is no object.
    """
    if not isinstance(values, list):
        problems.add("no array of rows", source)
        return []
    return _only_objects((Row(source, number, value) for number, value in enumerate(values, start=1)), problems)


def _lines(source: str, text: str, problems: Problems) -> list[Row]:
    rows = []
    # Not `splitlines`: JSON strings may hold the other separators that it splits at.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(Row(source, number, json.loads(line)))
        except (ValueError, RecursionError):
            problems.add("unreadable line", f"{source}:{number}")
    return _only_objects(rows, problems)


def _only_objects(rows: Iterable[Row], problems: Problems) -> list[Row]:
    objects = []
    for row in rows:
        if isinstance(row.fields, dict):
            objects.append(row)
        else:
            problems.add("row that is not an object", row.where)
    return objects
