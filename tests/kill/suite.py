"""The runs of all commands: how many of each, in which order, and what is printed."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kill.bench import Bench, Outcome
from kill.commands import COMMANDS, Command
from kill.report import rows, table

Pair = tuple[Command, int]
"""A command and a number of ranks."""


def chosen(names: Sequence[str] | None) -> list[Pair]:
    """Commands by name, on all their numbers of ranks or on the one after a colon; all of them when left out.

    Raises:
        KeyError: There is no such command.
    """
    pairs = [(command, ranks) for command in COMMANDS.values() for ranks in command.ranks]
    if names is None:
        return pairs
    known = {*COMMANDS, *(f"{command.name}:{ranks}" for command, ranks in pairs)}
    if unknown := sorted(set(names) - known):
        raise KeyError(f"no command `{unknown[0]}`; there are {', '.join(COMMANDS)}")
    return [pair for pair in pairs if {pair[0].name, f"{pair[0].name}:{pair[1]}"} & set(names)]


class Suite:
    """Runs and what became of them.

    Args:
        work: Folder for all that is written.
        pairs: What is run.
        end: Moment of `time.monotonic` after which no run is begun.
    """

    def __init__(self, work: Path, pairs: Sequence[Pair], end: float):
        self.work, self.pairs, self.end = work, pairs, end
        self.outcomes: dict[tuple[str, int], list[Outcome]] = {}

    @property
    def failures(self) -> int:
        """Runs that failed."""
        return sum(bool(run.problems) for runs in self.outcomes.values() for run in runs)

    def go(self, runs: int, seed: int) -> None:
        """Run each command its share of the runs, one after the other."""
        total, due, done = sum(command.share for command, _ in self.pairs), 0.0, 0
        for command, ranks in self.pairs:
            due += runs * command.share / total
            number, done = round(due) - done, round(due)
            if number and time.monotonic() < self.end:
                self._run(command, ranks, [seed * 1000 + index for index in range(number)])

    def again(self, seed: int) -> None:
        """One run anew."""
        self._run(*self.pairs[0], [seed])

    def report(self) -> tuple[list[dict[str, Any]], str]:
        """The figures and the table."""
        figures = rows(self.outcomes)
        return figures, table(figures)

    def _run(self, command: Command, ranks: int, seeds: Sequence[int]) -> None:
        started = time.monotonic()
        bench = Bench(command, ranks, self.work)
        bench.prepare()
        print(
            f"{bench.name}: {bench.seconds:.1f} s undisturbed, ready in {time.monotonic() - started:.0f} s", flush=True
        )
        outcomes = self.outcomes.setdefault((command.name, ranks), [])
        for seed in seeds:
            if time.monotonic() > self.end:
                break
            outcomes.append(bench.run(seed))
            _print(bench, outcomes[-1])


def _print(bench: Bench, outcome: Outcome) -> None:
    moments = ", then ".join(str(moment) for moment in outcome.moments)
    went = f"{outcome.hits} of {len(outcome.moments)} hit, went on from {outcome.resumed}, {outcome.seconds:.1f} s"
    print(f"  {'FAILED' if outcome.problems else 'ok'} {bench.name}:{outcome.seed} {moments}: {went}", flush=True)
    for problem in outcome.problems[:12]:
        print(f"    {problem}", flush=True)
    if outcome.problems:
        print(f"    once more: python -m tests.kill --again {bench.name}:{outcome.seed}", flush=True)
