"""One command, killed and run again: its inputs, its undisturbed runs, and what is checked after each kill."""

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from helpers.tiny_towers import hashes
from kill import process
from kill.commands import Command
from kill.compare import differences, halves
from kill.moments import Moment, draw, draw_second

_PATIENCE = 300.0
"""Seconds after which a run counts as hanging."""


@dataclass
class Outcome:
    """What became of one run."""

    seed: int
    moments: list[Moment] = field(default_factory=list)
    hits: int = 0
    """Kills that found the command running."""
    resumed: str = "nothing"
    """What the last start went on from: `nothing`, `checkpoint`, `part`, or `whole` when nothing was left to do."""
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Bench:
    """A command on a number of ranks.

    Args:
        command: What is killed.
        ranks: Number of ranks.
        work: Folder for all that is written.
    """

    def __init__(self, command: Command, ranks: int, work: Path):
        self.command, self.ranks, self.work = command, ranks, work
        self.inputs = work / f"inputs-{command.make.__name__.strip('_')}"
        own = work / f"{command.name}-{ranks}"
        self.place, self.state, self.reference, self.older = (
            own / name for name in ("run", "state", "reference", "older")
        )
        self.changes, self.modules, self.log = own / "changes", own / "modules", own / "log"
        own.mkdir(parents=True)
        self.seconds = 0.0

    def prepare(self) -> None:
        """Make the inputs and two undisturbed runs: the reference, and one that must be equal to it.

        Raises:
            RuntimeError: The command fails or does not repeat itself, so there is nothing to compare with.
        """
        if not self.inputs.is_dir():
            self.inputs.mkdir()
            process.call(lambda: self.command.make(self.inputs), self.log)
        self._before = hashes(self.inputs)
        with self._served():
            if self.command.older is not None:
                self._undisturbed(self.older, is_older=True)
            self._undisturbed(self.reference)
            self._changes = self._read_changes()
            process.warm(self.modules)
            self._undisturbed(self.reference.with_name("second"))
        if problems := differences(self.reference.with_name("second"), self.reference, self.command.volatile):
            raise RuntimeError(f"{self.name} gives another result each time: {'; '.join(problems[:10])}")

    @property
    def name(self) -> str:
        """Command and ranks."""
        return f"{self.command.name}:{self.ranks}"

    def run(self, seed: int, moments: Sequence[Moment] = ()) -> Outcome:
        """Kill it, let it end, and look at what is there.

        Args:
            seed: What one or two moments are drawn from.
            moments: In their place.
        """
        outcome = Outcome(seed, list(moments) or self._draw(seed))
        started = time.monotonic()
        self._clear()
        with self._served():
            for moment in outcome.moments:
                self._killed(moment, outcome)
            self._ended(outcome)
        if hashes(self.inputs) != self._before:
            outcome.problems.append("the inputs are not as they were")
        outcome.seconds = time.monotonic() - started
        if outcome.problems:
            self._keep(outcome)
        return outcome

    # ---- parts of a run ----

    def _draw(self, seed: int) -> list[Moment]:
        random_ = random.Random(f"{self.name}:{seed}")
        first = draw(random_, self._changes)
        return [first, draw_second(random_)] if random_.random() < 0.35 else [first]

    def _killed(self, moment: Moment, outcome: Outcome) -> None:
        started = self._start(moment)
        moment.strike(started, self.place, self.seconds)
        code = started.wait(_PATIENCE)
        outcome.hits += code == -signal.SIGKILL
        if code not in (0, -signal.SIGKILL) and not self._refused(code):
            outcome.problems.append(f"exit code {code} before it was killed")
        if left := started.left():
            outcome.problems.append(f"{len(left)} processes are left after the kill")
        outcome.problems += [f"after the kill: {problem}" for problem in self._halves()]

    def _ended(self, outcome: Outcome) -> None:
        went_on = "part" if self._kept() else "nothing"
        at = self.log.stat().st_size
        started = self._start(None)
        code = started.wait(_PATIENCE)
        printed = self.log.read_bytes()[at:].decode(errors="replace")
        if code is None:
            started.kill()
            outcome.problems.append(f"the run after the kill still runs after {_PATIENCE:.0f} s")
        elif self._refused(code):
            went_on = "whole"
            clear_as_the_next_command(self.place)
        elif code:
            outcome.problems.append(f"the run after the kill ends with {code}: {_last_line(printed)}")
        if re.search(r"resuming from \S+checkpoint-\d+", printed):
            went_on = "checkpoint"
        if went_on == "nothing" and code == 0:  # a whole run: the machine may be less busy now
            self.seconds = min(self.seconds, time.monotonic() - started.started)
        if left := started.left():
            outcome.problems.append(f"{len(left)} processes are left at the end")
        outcome.resumed = went_on
        outcome.problems += differences(self.place, self.reference, self.command.volatile)
        outcome.problems += [f"{path.name} is left over" for path in self.state.glob("*") if path.name != _KEY]

    def _halves(self) -> list[str]:
        found = halves(self.place, self.reference, self.command.volatile, self.command.growing)
        if found and self.command.older is not None:
            if not halves(self.place, self.older, self.command.volatile, self.command.growing):
                return []
        return found

    def _refused(self, code: int | None) -> bool:
        text = self.log.read_text(errors="replace")
        return self.command.refuses and code == 2 and "exists already" in _last_line(text)

    def _kept(self) -> bool:
        paths = [path for pattern in self.command.kept for path in self.place.glob(pattern)]
        return any(path.stat().st_size for path in paths if path.is_file())

    # ---- starting ----

    def _start(self, moment: Moment | None, is_older: bool = False, **more: Path) -> process.Process:
        argv = self.command.older if is_older and self.command.older is not None else self.command.argv
        given = dict(self.command.environment or {})
        url = self.work / "url"
        return process.Process(
            process.Start(
                argv=argv(self.inputs, self.place, self.ranks),
                ranks=self.ranks,
                log=self.log,
                watched=[self.place, self.state],
                environment={"TOVE_STATE_DIR": str(self.state)}
                | {key: value.format(url=url.read_text() if url.is_file() else "") for key, value in given.items()},
                is_cold=self.command.is_cold,
                plan=getattr(moment, "plan", None),
                **more,
            )
        )

    def _undisturbed(self, keep: Path, is_older: bool = False) -> None:
        self._clear(with_older=not is_older)
        started = self._start(None, is_older, changes=self.changes, modules=self.modules)
        if started.wait(_PATIENCE):
            raise RuntimeError(f"{self.name} fails undisturbed:\n{self.log.read_text()[-3000:]}")
        self.seconds = time.monotonic() - started.started
        shutil.copytree(self.place, keep)

    def _clear(self, with_older: bool = True) -> None:
        for folder in (self.place, self.state):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.log, *self.changes.parent.glob("changes-*")):
            file.unlink(missing_ok=True)
        self.place.mkdir()
        if with_older and self.older.is_dir():
            shutil.copytree(self.older, self.place, dirs_exist_ok=True)

    def _read_changes(self) -> list[list[str]]:
        files = [self.changes.with_name(f"changes-{rank}") for rank in range(self.ranks)]
        return [file.read_text().splitlines() if file.is_file() else [] for file in files]

    @contextmanager
    def _served(self) -> Iterator[None]:
        serve = self.command.serve
        if serve is None:
            yield
            return
        (self.work / "url").unlink(missing_ok=True)
        server = process.spawn(lambda: serve(self.inputs), self.log.with_name("server"))
        try:
            end = time.monotonic() + 60
            while not (self.work / "url").is_file() and time.monotonic() < end:
                time.sleep(0.01)
            yield
        finally:
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)

    def _keep(self, outcome: Outcome) -> None:
        """What a failed run left, for whoever looks into it."""
        kept = self.work / f"failed-{self.command.name}-{self.ranks}-{outcome.seed}"
        shutil.copytree(self.place, kept, dirs_exist_ok=True)
        shutil.copy(self.log, kept / "suite.log")


_KEY = "checkpoint.key"


def clear_as_the_next_command(folder: Path) -> None:
    """What a refusal leaves lying, the next command that writes a folder there takes away."""
    from tove_lvlm.storage import clear_leftovers

    clear_leftovers(folder)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
