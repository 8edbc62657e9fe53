"""JSON, the package's own files, and the errors of files with weights.

See docs/design.md, "Saved towers".
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from .atomic import atomic_file

ASSETS = Path(__file__).resolve().parent.parent / "assets"
"""The package's own folder of files that are no code."""


class WeightsError(UserError):
    """Weights cannot be read or do not fit; the message names the file."""


class MissingWeightsError(WeightsError, FileNotFoundError):
    """Weights, or a file beside them, are not there."""


class PartialWeightsError(MissingWeightsError):
    """Some of the weights are there, and not all."""


def first_names(names: Iterable[str], limit: int = 3) -> str:
    """The first few of some names, for a message."""
    names = sorted(names)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def save_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(to_json(value, indent=2) + "\n", encoding="utf-8")


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON that UTF-8 can hold: half of a surrogate pair, which a Python string may have, is escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return text if _is_utf8(text) else json.dumps(value, indent=indent)


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def load_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        MissingWeightsError: There is no such file.
        WeightsError: It is not JSON, or another value than an object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingWeightsError(f"file `{path}` does not exist") from error
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"file `{path}` is not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"file `{path}` holds a {type(content).__name__}; expected a JSON object")
    return content


def short_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as tell all apart.

    Args:
        folders: Paths that lie in different places; equal ones get equal names.
    """
    paths = [folder.resolve() for folder in folders]
    longest, distinct = max(len(path.parts) for path in paths), len({*paths})
    candidates = (["/".join(path.parts[-length:]) for path in paths] for length in range(1, longest + 1))
    return next(names for names in candidates if len({*names}) == distinct)
