"""Files written whole or not at all, JSON, and the package's own files.

See docs/design.md, "Saved towers".
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError

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


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there takes its place on success, else nothing changes.

    Args:
        path: File to write; its folder is made when it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        sync_to_disk(temporary)
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files only their owner can read
        os.replace(temporary, path)
        sync_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_dir(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder beside `path`; it takes its place on success (an older one is replaced as a whole).

    Args:
        path: Folder to write.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    retired = temporary.with_suffix(".old")
    try:
        yield temporary
        for entry in sorted(temporary.rglob("*")):
            sync_to_disk(entry)
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            os.replace(path, retired)
        os.replace(temporary, path)
        sync_to_disk(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():
            shutil.rmtree(retired, ignore_errors=True)
        elif retired.exists():
            os.replace(retired, path)


def refuse_filled(folder: str | os.PathLike[str]) -> None:
    """Nothing that is there already may be replaced by a command that makes a folder.

    Raises:
        UserError: The folder has something in it, or is a file.
    """
    folder = Path(folder)
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise UserError(f"output `{folder}` exists already; name a new folder, or remove it first")


def save_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_json(path: str | os.PathLike[str]) -> Any:
    """Read JSON.

    Raises:
        MissingWeightsError: There is no such file.
        WeightsError: It is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingWeightsError(f"file `{path}` does not exist") from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"file `{path}` is not readable as JSON: {error}") from error


def sync_to_disk(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, so that a power cut does not lose it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
