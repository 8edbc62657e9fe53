"""Timing in rounds: every call once, the next round in the opposite order, so that a slow minute hits all alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from tove_lvlm.cost import clock_of

CLOCKS = ("wall", "cpu")


def cpu_clock() -> float:
    """Milliseconds that this process has computed, on all its threads."""
    return time.process_time() * 1e3


def clock_named(name: str, device: torch.device) -> Callable[[], float]:
    """A clock in milliseconds.

    Args:
        name: `wall`, once all that was asked of the device is done; `cpu`, of a CPU that others use too.
        device: Where the calls compute.
    """
    return cpu_clock if name == "cpu" else clock_of(device)


def in_turns(
    calls: Mapping[str, Callable[[], object]], clock: Callable[[], float], rounds: int
) -> dict[str, list[float]]:
    """What each call took in each round, in the clock's unit, after one round to warm up.

    Args:
        calls: By name; the first round goes through them in this order.
        clock: Gives the time.
        rounds: Timed rounds, at least 1.
    """
    names = list(calls)
    elapsed: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names[::-1] if number % 2 else names:
            start = clock()
            calls[name]()
            if number:
                elapsed[name].append(clock() - start)
    return elapsed


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Median, smallest and largest of the rounds.

    Args:
        values: One for each round.
        digits: Kept behind the point.
    """
    found = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: round(value, digits) for name, value in found.items()}
