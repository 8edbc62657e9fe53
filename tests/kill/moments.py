"""When a command is killed: drawn from a seed, so that a run can be made again."""

import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kill.events import RENAME, Plan
from kill.process import Process

UNFINISHED = (".part", ".tmp")
"""Endings of files that are not whole yet and are not hidden."""


@dataclass(frozen=True)
class AtTime:
    """Somewhere in the run."""

    share: float
    """Of the duration of an undisturbed run."""

    def strike(self, process: Process, place: Path, seconds: float) -> None:
        """Wait for the moment and kill."""
        end = process.started + self.share * seconds
        while process.poll() is None:
            if time.monotonic() >= end:
                return process.kill()
            time.sleep(0.0005)


@dataclass(frozen=True)
class Writing:
    """A little after an unfinished entry has shown up in the output."""

    number: int
    """Which of such entries, from 1."""
    delay: float
    """Seconds."""

    def strike(self, process: Process, place: Path, seconds: float) -> None:
        """As `AtTime.strike`."""
        seen: set[str] = set()
        while process.poll() is None:
            seen |= unfinished_entries(place)
            if len(seen) >= self.number:
                time.sleep(self.delay)
                return process.kill()
            time.sleep(0.0005)


@dataclass(frozen=True)
class AtChange:
    """Before, or right after, one of the changes of files that the process makes: it ends itself there."""

    plan: Plan

    def strike(self, process: Process, place: Path, seconds: float) -> None:
        """As `AtTime.strike`."""
        while process.poll() is None:
            time.sleep(0.001)


Moment = AtTime | Writing | AtChange


def unfinished_entries(place: Path) -> set[str]:
    """Paths of what is temporary now; folders that vanish while they are looked at are passed over."""
    found = (Path(folder, name) for folder, folders, files in os.walk(place) for name in (*folders, *files))
    return {str(path) for path in found if is_unfinished(path)}


def is_unfinished(path: Path) -> bool:
    """Whether a name is that of something temporary."""
    temporary = path.name.startswith(".") and not path.name.endswith(".tove-lock") and path.name != ".tove.json"
    return temporary or path.suffix in UNFINISHED


def draw(random_: random.Random, changes: Sequence[Sequence[str]]) -> Moment:
    """A moment: of 20, seven at any time, four while something is written, nine at a change of a file.

    Of these nine, three are at a rename, three just after a file was opened under the name that it will keep (which
    must not be half there), three at any change.

    Args:
        random_: Where it is drawn from.
        changes: Of each rank in an undisturbed run: KIND PATH.
    """
    kind = random_.random()
    if kind < 0.35 or not any(changes):
        return AtTime(random_.random())
    if kind < 0.55:
        paths = {line.partition(" ")[2] for line in changes[0]}
        unfinished = sum(is_unfinished(Path(path)) for path in paths)
        return Writing(random_.randint(1, max(1, min(unfinished, 5))), random_.uniform(0, 0.03))
    rank = random_.choice([rank for rank, of_rank in enumerate(changes) if of_rank])
    renames = [index for index, line in enumerate(changes[rank]) if line.startswith(RENAME)]
    opened = [index for index, line in enumerate(changes[rank]) if _opens_a_kept_name(line)]
    if renames and kind < 0.7:
        return AtChange(Plan(rank, random_.choice(renames), random_.choice((0, 0, 1, 2, 4))))
    if opened and kind < 0.85:
        return AtChange(Plan(rank, random_.choice(opened), random_.choice((1, 1, 2, 3))))
    return AtChange(Plan(rank, random_.randrange(len(changes[rank])), random_.choice((0, 0, 1, 2, 4))))


def _opens_a_kept_name(line: str) -> bool:
    kind, _, name = line.partition(" ")
    path = Path(name)
    return kind == "open" and not any(map(is_unfinished, (path, *path.parents))) and path.suffix != ".tove-lock"


def draw_second(random_: random.Random) -> Moment:
    """One for the run that goes on: at any time, or at one of its first changes, where it clears and cuts."""
    if random_.random() < 0.5:
        return AtTime(random_.random())
    return AtChange(Plan(0, random_.randrange(15), random_.choice((0, 1, 1, 2))))
