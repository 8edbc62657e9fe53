"""Where a command may write: never into what it reads, and never over what it did not make."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import UserError
from .atomic import atomic_dir, clear_leftovers
from .locks import lock_folder


def refuse_inputs(
    output: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]], *, may_contain: bool = False
) -> None:
    """An output that is an input, lies in one or contains one is refused. Links are followed.

    Args:
        output: File or folder; it need not exist.
        inputs: Files and folders that the command reads. Folders are whole things, such as a checkpoint.
        may_contain: Inputs may lie in `output`: it is the folder of a run that goes on.

    Raises:
        UserError: Names both.
    """
    path = Path(output).resolve()
    for source in inputs:
        read = Path(source).resolve()
        if path == read:
            raise UserError(f"output `{output}` is the input `{source}`, which is not changed; name another")
        if read in path.parents:
            raise UserError(f"output `{output}` lies in the input `{source}`, which is not changed; name another")
        if path in read.parents and not may_contain:
            raise UserError(f"output `{output}` contains the input `{source}`; name a folder of its own")


def refuse_filled(folder: str | os.PathLike[str]) -> None:
    """Nothing that is there already may be replaced by a command that makes a folder.

    Raises:
        UserError: The folder has something in it, or is a file.
    """
    folder = Path(folder)
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise UserError(f"output `{folder}` exists already; name a new folder, or remove it first")


@contextlib.contextmanager
def new_folder(output: str | os.PathLike[str], *inputs: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to write in that becomes `output` at the end, or leaves nothing when something fails.

    Args:
        output: Must be empty or not there.
        inputs: As for `refuse_inputs`.

    Raises:
        UserError: `output` exists, or is in the way of an input; another process writes it; or the disk is full or
            refuses.
    """
    refuse_inputs(output, inputs)
    refuse_filled(output)
    if Path(output).resolve() == Path.cwd():  # it is replaced, which would leave the user's shell in one that is gone
        raise UserError(f"output `{output}` is the folder that you are in; name a new one")
    with told_disk_errors(output), atomic_dir(output, replace=False) as writing:
        yield writing


@contextlib.contextmanager
def run_folder(
    folder: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = (), *, may_contain: bool = False
) -> Iterator[None]:
    """The folder of a run that may go on in it: nothing is written before every refusal is past. What a killed run left
    half written in it is removed.

    Args:
        folder: Made when it is missing.
        inputs: As for `refuse_inputs`.
        may_contain: As there.

    Raises:
        UserError: It is in the way of an input, another process writes there, or it cannot be written.
    """
    refuse_inputs(folder, inputs, may_contain=may_contain)
    with lock_folder(folder):
        clear_leftovers(folder)
        yield


@contextlib.contextmanager
def told_disk_errors(output: str | os.PathLike[str]) -> Iterator[None]:
    """A full disk, a read-only folder and their like, while an output is written, as one line. An error about a file
    elsewhere, as an input that cannot be read, stays as it is.

    Raises:
        UserError: Names the output and the reason.
    """
    try:
        yield
    except Exception as error:
        reason = None if isinstance(error, UserError) else disk_reason(error)
        if reason is None or not _is_of(output, getattr(error, "filename", None)):
            raise
        raise UserError(f"output `{output}` cannot be written: {reason}; name another place") from error


def _is_of(output: str | os.PathLike[str], filename: object) -> bool:
    """Whether an error is about the output: the file is in it, is made beside it, or has no name, as in a write."""
    if not isinstance(filename, str | os.PathLike):
        return True
    target, path = Path(output).absolute(), Path(os.fspath(filename)).absolute()
    beside = [part.name for part in (path, *path.parents) if part.parent == target.parent]
    made = any(name == target.name or name.startswith(f".{target.name}.") for name in beside)
    return made or path in target.parents


def disk_message(error: Exception) -> str | None:
    """`disk_reason` with the file's name, where the error has one."""
    reason, filename = disk_reason(error), getattr(error, "filename", None)
    return reason if reason is None or filename is None else f"{reason}: `{filename}`"


def disk_reason(error: Exception) -> str | None:
    """What the system said of a file that could not be written or read; None of any other error.

    Args:
        error: Python's own, or that of a library in Rust, such as safetensors, which has the number in its text.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    number = re.search(r"\(os error (\d+)\)", str(error))
    return None if number is None else os.strerror(int(number[1]))
