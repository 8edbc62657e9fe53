"""Timing in rounds: who is called when, and what is kept."""

import itertools

import torch
from speed.rounds import clock_named, cpu_clock, in_turns, spread


def test_each_round_goes_the_other_way_and_the_first_is_not_kept():
    called = []
    ticks = itertools.count(step=10)
    calls = {name: lambda name=name: called.append(name) for name in "abc"}
    elapsed = in_turns(calls, lambda: next(ticks), rounds=2)
    assert "".join(called) == "abc" + "cba" + "abc"
    assert elapsed == {name: [10, 10] for name in "abc"}


def test_spread_is_median_and_range():
    assert spread([3.0, 1.0, 2.00004], digits=4) == {"median": 2.0, "low": 1.0, "high": 3.0}


def test_clocks_count_milliseconds():
    clock = clock_named("cpu", torch.device("cpu"))
    assert clock is cpu_clock
    start = clock()
    sum(range(10**6))
    assert 1 < clock() - start < 10_000
    assert clock_named("wall", torch.device("cpu")) is not cpu_clock
