"""The one property of every input: the documented result, or one line for people; inputs unchanged byte for byte,
outputs whole or absent, no hang.
"""

import atexit
import contextlib
import functools
import hashlib
import io
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis.strategies import SearchStrategy

from tove_lvlm.config import UserError

ACCEPTED, REFUSED = "accepted", "refused"
LONGEST_LINE = 1600
"""Characters of a message; `errors` cuts at 1500."""
MEMORY = 8 << 30
"""Bytes that an example may take beyond what the process has."""


class _Hang(BaseException):
    """Past every `except Exception`."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One kind of input, and what is done with it."""

    name: str
    cases: SearchStrategy
    """Cases that are plain JSON."""
    write: Callable[[Any, Path], None]
    """Writes a case's input files into an empty folder."""
    act: Callable[[Any, Path, Path], Any]
    """(case, inputs, output): does what a command does and gives its result; UserError is a refusal."""
    accepted: Callable[[Any, Path, Path, Any], None]
    """(case, inputs, output, result): asserts that the result means what is documented."""
    refused: Callable[[Any, Path, Path], None] = lambda case, inputs, output: None
    """(case, inputs, output): asserts the same of what a refusal may leave."""
    shared: Callable[[], list[Path]] = field(default=list)
    """Further inputs, made once, which nothing may change either."""
    may_leave: bool = False
    """Whether a refusal may leave files at the output, as a download that goes on there."""
    deadline: float = 20.0
    """Seconds for an example."""

    def check(self, case: Any) -> str:
        """Check the property with a case.

        Returns:
            ACCEPTED or REFUSED.

        Raises:
            AssertionError: The property does not hold.
            Exception: Whatever the package let through.
        """
        shared = self.shared()
        with tempfile.TemporaryDirectory(dir=workspace()) as folder:
            inputs, output = Path(folder) / "in", Path(folder) / "out"
            inputs.mkdir()
            self.write(case, inputs)
            before = snapshot(inputs), stamps(shared)
            try:
                with limits(self.deadline):
                    result = self.act(case, inputs, output)
                outcome = ACCEPTED
            except UserError as error:
                check_line(str(error))
                outcome, result = REFUSED, None
            assert (snapshot(inputs), stamps(shared)) == before, "an input has been changed"
            left = {path.name for path in Path(folder).iterdir()} - {"in", "out"}
            assert not left, f"left beside the output: {sorted(left)}"
            assert outcome == ACCEPTED or self.may_leave or not output.exists(), "a refusal has left an output"
            with limits(self.deadline):
                if outcome == ACCEPTED:
                    self.accepted(case, inputs, output, result)
                else:
                    self.refused(case, inputs, output)
            assert (snapshot(inputs), stamps(shared)) == before, "an input has been changed by what was made of it"
        return outcome


def check_line(message: str) -> None:
    """A message is one line, of a length that people read."""
    assert message.strip(), "the message is empty"
    assert "\n" not in message, f"the message has several lines: {message[:300]!r}"
    assert len(message) <= LONGEST_LINE, f"the message has {len(message)} characters"


@functools.cache
def workspace() -> Path:
    """A folder for all examples of this process, in memory where that can be: what is written atomically is flushed."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="tove-fuzz-", dir=memory))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def snapshot(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, and which folders there are."""
    found = [path for path in folder.rglob("*") if not path.is_symlink()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in found}


def stamps(folders: list[Path]) -> dict[str, tuple[int, int, int]]:
    """The same of many files by what the system notes of every change: inode, size and the time of the last change."""
    found = [path for folder in folders for path in folder.rglob("*")]
    return {str(path): ((stat := path.lstat()).st_ino, stat.st_size, stat.st_ctime_ns) for path in found}


@contextlib.contextmanager
def limits(seconds: float) -> Iterator[None]:
    """A deadline, a bound on memory, no warnings and no log."""

    def ring(*_: object) -> None:
        raise _Hang

    before = signal.signal(signal.SIGALRM, ring)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    logging.disable(logging.CRITICAL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except _Hang as hang:
        raise AssertionError(f"not done after {seconds} seconds") from hang
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        logging.disable(logging.NOTSET)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def tove(*arguments: object) -> str:
    """The command `tove`, called in this process.

    Returns:
        Its standard output, of exit code 0.

    Raises:
        UserError: Exit code 2, with its line.
        AssertionError: Another exit code, or more than a line at exit code 2.
    """
    from tove_lvlm import cli

    code, out, err = captured(lambda: cli.main(), ["tove", *map(str, arguments)])
    return answered(code, out, err)


def answered(code: int, out: str, err: str) -> str:
    """Standard output of exit code 0; see `tove`."""
    if code == 0:
        return out
    assert code == 2, f"exit code {code}: {err[-500:]}"
    lines = err.split("error: ", 1)
    assert len(lines) == 2, f"exit code 2 without a line that says why: {err[-500:]!r}"
    raise UserError(lines[1].removesuffix("\n"))


def captured(main: Callable[[], Any], argv: list[str]) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a program's main function.

    Args:
        main: Gives the exit code, or ends with SystemExit.
        argv: What it reads as `sys.argv`.
    """
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = argv
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main()
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.argv = before
    return int(code or 0), out.getvalue(), err.getvalue()
