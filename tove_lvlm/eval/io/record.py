"""The score record: a score with all that says how it was made, as JSON.

See docs/evaluation.md, "Records".
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...config import UserError
from ...storage import load_json, save_json
from .items import Item

FORMAT = 1
FILE_NAME = "record.json"


def save(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write `record.json` into a folder."""
    save_json(folder / FILE_NAME, dict(record))
    return folder / FILE_NAME


def load(path: str | Path) -> dict[str, Any]:
    """Read a record.

    Args:
        path: The file, or the folder of a run.

    Raises:
        UserError: There is none.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    record = load_json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT or "metrics" not in record:
        raise UserError(f"`{path}` is no score record of `tove eval` (format {FORMAT})")
    return record


def sha256(path: str | Path) -> str:
    """Of a file, as `sha256sum` prints it."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def text_sha256(text: str) -> str:
    """Of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def questions_sha256(items: list[Item]) -> str:
    """Of what is asked: ids, images and full prompts, whatever their order."""
    return text_sha256("\x1e".join(sorted("\x1f".join((i.question_id, i.image, i.text, *i.choices)) for i in items)))
