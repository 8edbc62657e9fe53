"""Files and folders written whole or not at all, and what killed processes left of them.

See docs/design.md, "Saved towers".
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError
from .locks import lock_name, locked_name

_TEMPORARY, _RETIRED = ".tove-tmp", ".tove-old"
_LEFTOVER = re.compile(r"\.(?P<key>(?P<name>.+)\.[0-9a-f]{8})(?P<ending>\.tove-tmp|\.tove-old)")


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], *, flush: bool = True) -> Iterator[Path]:
    """Give a temporary path of the same name; what was written there takes its place on success, else nothing changes.

    Args:
        path: File to write; its folder is made when it is missing.
        flush: Wait until it is on the disk; needless for what can be made again, and slow for many small files.
    """
    path = Path(path)
    # A folder of its own, since libraries put temporary files beside what they write.
    with temporary_folder(path) as folder:
        temporary = folder / path.name
        yield temporary
        if flush:
            sync_to_disk(temporary)
        temporary.chmod(0o666 & ~_umask())  # some libraries make files only their owner can read
        os.replace(temporary, path)
        if flush:
            sync_to_disk(path.parent)


@contextlib.contextmanager
def atomic_dir(path: str | os.PathLike[str], *, replace: bool = True) -> Iterator[Path]:
    """Give a temporary folder beside `path`; it takes its place on success, else nothing changes.

    Args:
        path: Folder to write.
        replace: An older one is replaced as a whole. Otherwise none may be there, not even at the end.

    Raises:
        UserError: Another process writes it; or something appeared at `path` that may not be replaced.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock_name(path):
        clear_leftovers(path.parent)
        with temporary_folder(path) as temporary:
            retired = temporary.with_suffix(_RETIRED)
            try:
                yield temporary
                for entry in sorted(temporary.rglob("*")):
                    sync_to_disk(entry)
                temporary.chmod(0o777 & ~_umask())
                if replace and path.exists():
                    os.replace(path, retired)
                _move(temporary, path)
                sync_to_disk(path.parent)
            finally:
                _settle(retired, path)


def clear_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove what processes that were killed left half written in a folder; an older version that one had set aside
    takes its place again. What belongs to a living process is left alone.

    Args:
        folder: Where to look, not below.
    """
    with contextlib.suppress(OSError):  # another process clears it too
        for entry in Path(folder).iterdir():
            match = _LEFTOVER.fullmatch(entry.name)
            if match is None:
                if (name := locked_name(entry)) is not None:
                    with contextlib.suppress(UserError), lock_name(name):
                        pass  # releasing removes it
                continue
            with contextlib.suppress(UserError), lock_name(entry.with_name(match["key"])) as is_locked:
                if is_locked and match["ending"] == _RETIRED:
                    _settle(entry, entry.with_name(match["name"]))
                elif is_locked:
                    shutil.rmtree(entry, ignore_errors=True)


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path` that is locked, so that `clear_leftovers` knows it from a leftover. It goes at the
    end.

    Args:
        path: Gives the name; its folder is made when it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        key = _lock_key(stack, path)
        temporary = key.with_name(f".{key.name}{_TEMPORARY}")
        temporary.mkdir(mode=0o700)
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _lock_key(stack: contextlib.ExitStack, path: Path, tries: int = 3) -> Path:
    """Lock a name that nobody has. Another process that clears leftovers may have taken a new one for a leftover."""
    key = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        stack.enter_context(lock_name(key))
    except UserError:
        if tries == 1:
            raise
        return _lock_key(stack, path, tries - 1)
    return key


def sync_to_disk(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, so that a power cut does not lose it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _move(temporary: Path, path: Path) -> None:
    """A rename that replaces nothing but an empty folder."""
    try:
        os.replace(temporary, path)
    except OSError as error:
        if path.exists():
            raise UserError(f"output `{path}` has appeared meanwhile and is not replaced; name another") from error
        raise


def _settle(retired: Path, path: Path) -> None:
    """The older version goes when the new one is there, and takes its place again when it is not."""
    if path.exists():
        shutil.rmtree(retired, ignore_errors=True)
    elif retired.exists():
        os.replace(retired, path)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
