"""Every target with fixed seeds: a few cases of each in every run, many where `full` is asked for."""

import pytest

from .property import ACCEPTED, REFUSED
from .run import fuzz
from .targets import TARGETS

EXAMPLES = {"configs": 60, "rows": 150, "answers": 80, "checkpoints": 8, "images": 150, "server": 40}
"""Target -> cases of the usual run, about five seconds on two cores."""
SEED = 20261129
FULL_SECONDS = 95
"""Of a target in the full run; ten minutes of all six."""


@pytest.mark.parametrize("name", TARGETS)
def test_the_property_holds(name):
    counts = fuzz(TARGETS[name], max_examples=EXAMPLES[name], seed=SEED)
    assert counts.outcomes[ACCEPTED] > 0, f"no case is accepted, so nothing is checked of what is: {counts}"
    assert counts.outcomes[REFUSED] > 0, f"no case is refused: {counts}"


@pytest.mark.full
@pytest.mark.parametrize("name", TARGETS)
def test_the_property_holds_at_length(name):
    counts = fuzz(TARGETS[name], max_examples=100_000, seed=SEED + 1, seconds=FULL_SECONDS)
    print(f"{name}: {counts}")
    assert counts.outcomes.total() > 5 * EXAMPLES[name]
