"""A running `tove view` for tests."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

STARTS_WITHIN = 240
"""Seconds, on a machine that is busy with other tests."""


class Viewing(NamedTuple):
    """A page and the processes behind it."""

    address: str
    process: subprocess.Popen
    temporary: Path
    """Where it puts temporary files."""

    def worker(self) -> int:
        """Process id of the one with the models."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        running = [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
        return running[-1]

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The models stand still while the block runs."""
        worker = self.worker()
        os.kill(worker, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(worker, signal.SIGCONT)


@contextlib.contextmanager
def viewing(arguments: Sequence[str], environment: dict[str, str] | None = None) -> Iterator[Viewing]:
    """`tove view` with these arguments, until the block ends.

    Args:
        arguments: Of the command, without a port.
        environment: Further variables.
    """
    with tempfile.TemporaryDirectory() as temporary, tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "tove_lvlm.cli", "view", "--no-browser", "--port", str(free_port())]
        process = subprocess.Popen(
            [*command, *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": temporary, **(environment or {})},
        )
        try:
            yield Viewing(_address(process, log), process, Path(temporary))
        finally:
            process.terminate()
            process.wait(60)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _address(process: subprocess.Popen, log) -> str:
    start = time.monotonic()
    while time.monotonic() - start < STARTS_WITHIN:
        log.seek(0)
        text = log.read()
        if found := re.search(r"http://\S+", text):
            return found[0].rstrip("/")
        if process.poll() is not None:
            break
        time.sleep(0.2)
    raise AssertionError(f"`tove view` does not run:\n{text}")
