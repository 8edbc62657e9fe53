"""Commands as processes of their own session, forked from this one so that torch is imported once.

A start takes a second instead of the ten to thirty of a new interpreter, and most kills then fall into the command's
own work. `is_cold` starts a new interpreter all the same.
"""

import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kill import events

_SPEC = "TOVE_KILL_SPEC"


@dataclass(frozen=True, kw_only=True)
class Start:
    """What is started."""

    argv: list[str]
    """A script and its arguments, or `tove` and its arguments."""
    ranks: int
    log: Path
    """Gets what it prints."""
    watched: list[Path]
    """Folders whose changes are counted."""
    environment: dict[str, str] = field(default_factory=dict)
    is_cold: bool = False
    plan: events.Plan | None = None
    changes: Path | None = None
    """File to list its changes in, by rank: `changes-0`."""
    modules: Path | None = None
    """File to list the imported modules in."""


class Process:
    """A started command.

    Args:
        start: What to start.
    """

    def __init__(self, start: Start):
        start.log.touch()  # a process that is killed at once has not made it
        self.started = time.monotonic()
        self.pid = _fork(lambda: _lead(start))
        self.code: int | None = None

    def poll(self) -> int | None:
        """Exit code, -N after signal N; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, seconds: float) -> int | None:
        """Exit code, or None when it still runs after so many seconds."""
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        return self.code

    def kill(self) -> None:
        """SIGKILL to the whole group; to the process alone when it has not made its group yet."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            if self.poll() is None:
                os.kill(self.pid, signal.SIGKILL)

    def left(self, seconds: float = 10.0) -> list[int]:
        """Processes of the session that are still there after so many seconds; they are killed then."""
        end = time.monotonic() + seconds
        while (found := _session(self.pid)) and time.monotonic() < end:
            time.sleep(0.01)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return found


def call(function: Callable[[], None], log: Path) -> None:
    """Run a function in a process of its own, so that this one stays without threads.

    Raises:
        RuntimeError: It failed; with what it printed.
    """

    _, status = os.waitpid(spawn(function, log), 0)
    if status:
        raise RuntimeError(f"{getattr(function, '__name__', function)} failed:\n{log.read_text()[-3000:]}")


def spawn(function: Callable[[], None], log: Path) -> int:
    """Run a function in a process of its own that goes on beside this one; its id."""

    def run() -> int:
        _print_to(log)
        function()
        return 0

    return _fork(run)


def warm(modules: Path) -> None:
    """Import here what a process has imported, for all that are forked later."""
    for name in modules.read_text().splitlines() if modules.is_file() else ():
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def _fork(function: Callable[[], int]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = function()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _print_to(log: Path) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(handle, 1)
    os.dup2(handle, 2)


def _lead(start: Start) -> int:
    """The leader of the session: the command itself, or what starts its ranks and ends them when one fails."""
    os.setsid()
    _print_to(start.log)
    os.environ |= start.environment
    if start.ranks == 1:
        return _run(start, 0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": start.ranks, "LOCAL_WORLD_SIZE": start.ranks, "MASTER_ADDR": "127.0.0.1"}
    running = set()
    for rank in range(start.ranks):
        os.environ |= {k: str(v) for k, v in {**shared, "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank}.items()}
        running.add(_fork(lambda rank=rank: _run(start, rank)))
    code = 0
    while running:
        pid, status = os.wait()
        running.discard(pid)
        if status and not code:
            code = abs(os.waitstatus_to_exitcode(status))
            for other in running:
                os.kill(other, signal.SIGKILL)
    return code


def _run(start: Start, rank: int) -> int:
    if start.is_cold:
        os.environ[_SPEC] = json.dumps({**asdict(start), "rank": rank}, default=str)
        os.execv(sys.executable, [sys.executable, "-m", "kill.process"])
    plan = start.plan if start.plan is not None and start.plan.rank == rank else None
    changes = None if start.changes is None else f"{start.changes}-{rank}"
    events.install([str(folder) for folder in start.watched], plan, changes)
    code = _execute(start.argv)
    if start.modules is not None and rank == 0:
        names = [name for name, module in sys.modules.items() if module is not None and name != "__main__"]
        start.modules.write_text("\n".join(names))
    return code


def _execute(argv: list[str]) -> int:
    sys.argv = list(argv)
    try:
        if argv[0] == "tove":
            from tove_lvlm import cli

            cli.main()
        else:
            runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def _session(leader: int) -> list[int]:
    """Living processes of a session, out of /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                state, _, _, session, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(session) == leader and state != "Z":
                    found.append(int(entry.name))
    return found


if __name__ == "__main__":
    spec = json.loads(os.environ.pop(_SPEC))
    own_rank = spec.pop("rank")
    spec |= {"is_cold": False, "plan": None if spec["plan"] is None else events.Plan(**spec["plan"])}
    spec |= {name: Path(spec[name]) for name in ("changes", "modules", "log") if spec[name] is not None}
    ended = _run(Start(**spec), own_rank)
    sys.stdout.flush()
    os._exit(ended)
