"""Changes of files as a process makes them, counted by Python's audit hook, and a kill at one of them.

The product has no hook for this: every `open` for writing, rename, removal and new folder of Python passes here. What
libraries write in C++ or Rust does not; `moments.Writing` is for that.
"""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

RENAME = "os.rename"
_KINDS = (RENAME, "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "shutil.rmtree")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Plan:
    """Where a process ends itself, and its process group with it."""

    rank: int
    """Whose changes are counted."""
    index: int
    """Number of the change, from 0."""
    calls: int
    """0: just before the change is made; n: at the n-th call of a function after it."""


def install(folders: Sequence[str], plan: Plan | None, log: str | None) -> None:
    """Count the changes below some folders from now on; it cannot be taken back.

    Args:
        folders: Absolute paths.
        plan: Where to end; None never ends.
        log: File that a line is added to for each change; None writes none.
    """
    inside = tuple(f"{folder}{os.sep}" for folder in folders)
    handle = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    count = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal count
        if event != "open" and event not in _KINDS:
            return
        if event == "open" and not _writes(arguments):
            return
        path = _text(arguments[0])
        if path is None or not path.startswith(inside):
            return
        if handle is not None:
            os.write(handle, f"{event} {path}\n".encode())
        if plan is not None and count == plan.index:
            _end(plan.calls)
        count += 1

    sys.addaudithook(hook)


def _writes(arguments: tuple) -> bool:
    _, mode, flags = arguments
    return bool(set(mode) & set("wax+")) if isinstance(mode, str) else bool(flags & _WRITING)


def _text(path: object) -> str | None:
    return os.path.abspath(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else None


def _end(calls: int) -> None:
    if calls == 0:
        os.killpg(0, signal.SIGKILL)
    left = calls

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal left
        if event in ("call", "c_call"):
            left -= 1
            if left <= 0:
                os.killpg(0, signal.SIGKILL)

    sys.setprofile(profile)
