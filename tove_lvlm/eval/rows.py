"""Label and answer files as rows: JSON lines or a JSON array of objects; what cannot be read is noted. Our choice.

Official files of one benchmark come in both forms, and either may end in `.json`; the content decides.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ..config import UserError
from .problems import Problems


class Row(NamedTuple):
    """One JSON object of a file."""

    where: str
    """`file:line`, or `file[index]` in an array."""
    fields: dict[str, Any]

    def has(self, names: Iterable[str], problems: Problems) -> bool:
        """Whether all of `names` are fields; the first that is not is noted."""
        for name in names:
            if name not in self.fields:
                problems.add(f"row without `{name}`", self.where)
                return False
        return True


def read_rows(path: str | Path, problems: Problems) -> list[Row]:
    """Rows of a file in its order.

    Raises:
        UserError: There is no such file, or no row in it.
    """
    content = read_json(path, problems)
    return [Row(f"{Path(path).name}:1", content)] if isinstance(content, dict) else content


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
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("["):
            raise UserError(f"file `{path}` is not readable as JSON, perhaps it is truncated: {error}") from error
        rows = _lines(path.name, text, problems)
    else:
        if isinstance(content, dict):
            return content
        values = content if isinstance(content, list) else []
        rows = _objects(((f"{path.name}[{index}]", value) for index, value in enumerate(values)), problems)
    if not rows:
        raise UserError(f"file `{path}` holds no rows: expected JSON lines or a JSON array of objects")
    return rows


def _lines(name: str, text: str, problems: Problems) -> list[Row]:
    values = []
    # Not `splitlines`: JSON strings may hold the other separators that it splits at.
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{name}:{number}"
        if not line.strip():
            continue
        try:
            values.append((where, json.loads(line)))
        except json.JSONDecodeError:
            problems.add("unreadable line", where)
    return _objects(values, problems)


def _objects(values: Iterable[tuple[str, Any]], problems: Problems) -> list[Row]:
    rows = []
    for where, value in values:
        if isinstance(value, dict):
            rows.append(Row(where, value))
        else:
            problems.add("row that is not an object", where)
    return rows
