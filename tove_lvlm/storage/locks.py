"""Which process is writing an output: a lock on it, so that two never mix what they write.

The lock is POSIX's (`fcntl.lockf`): the kernel drops it when its process ends, however it ends; worker processes that
were forked do not inherit it. It is advisory: only this package asks for it. Not tried on a network file system; one
that has no locks is told once, and goes without.
"""

import contextlib
import functools
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError

try:
    import fcntl
except ImportError:  # Windows, where a saved tower runs with the code that lies beside it
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_ENDING = ".tove-lock"
_held: set[Path] = set()  # POSIX locks do not hold between the threads of one process
_held_guard = threading.Lock()


@contextlib.contextmanager
def lock_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Be the only process that writes into a folder.

    Args:
        folder: Made when it is missing, and then removed again when nothing is in it at the end.

    Raises:
        UserError: Another process writes there, or the folder cannot be written.
    """
    folder = Path(folder)
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output `{folder}` cannot be written: {error.strerror}; name another place") from error
    try:
        with _lock(folder / _ENDING, folder):
            yield
    finally:
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def lock_name(path: str | os.PathLike[str]) -> Iterator[bool]:
    """Be the only process that makes a folder of this name.

    Args:
        path: Need not exist; the folder that it will be in must.

    Yields:
        False where the file system has no locks, so that nothing is known of other processes.

    Raises:
        UserError: Another process makes it, or the parent cannot be written.
    """
    path = Path(path)
    with _lock(path.with_name(f".{path.name}{_ENDING}"), path) as is_locked:
        yield is_locked


def locked_name(file: Path) -> Path | None:
    """What `lock_name` was given, if a file is such a lock."""
    match = re.fullmatch(rf"\.(.+){re.escape(_ENDING)}", file.name)
    return None if match is None else file.with_name(match[1])


@contextlib.contextmanager
def _lock(file: Path, output: Path) -> Iterator[bool]:
    key = file.parent.resolve() / file.name
    with _held_guard:
        if key in _held:  # not even opened: closing it would drop the lock that this process has
            raise UserError(f"output `{output}` is being written by this process already; name another")
        _held.add(key)
    try:
        handle = _acquire(file, output)
        try:
            yield handle is not None
        finally:
            if handle is not None:
                file.unlink(missing_ok=True)  # before the lock is dropped: whoever waits sees that it is another file
                os.close(handle)
    finally:
        with _held_guard:
            _held.discard(key)


def _acquire(file: Path, output: Path) -> int | None:
    """The locked file's handle; None where the file system has no locks."""
    while fcntl is not None:
        try:
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"output `{output}` cannot be written: {error.strerror}; name another place") from error
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise UserError(f"output `{output}` is being written by {holder}; wait for it, or name another") from error
        except OSError as error:
            os.close(handle)
            file.unlink(missing_ok=True)
            _warn_of_no_locks(f"no locks on this file system ({error.strerror}): see that nothing else writes there")
            return None
        if _is_same(handle, file):
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return handle
        os.close(handle)  # its last holder removed it between our two calls
    return None


@functools.cache  # once for each kind, and not at every file
def _warn_of_no_locks(message: str) -> None:
    logger.warning(message)


def _is_same(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(file))
    except FileNotFoundError:
        return False
