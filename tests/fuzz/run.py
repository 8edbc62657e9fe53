"""Many cases against one target, and failures as files that can be run again."""

import contextlib
import dataclasses
import hashlib
import json
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed
from hypothesis.internal.conjecture.engine import ConjectureRunner

from .property import Target
from .targets import TARGETS


@dataclass
class Counts:
    """What became of a target's cases."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """ACCEPTED, REFUSED -> number of cases."""
    seconds: float = 0.0

    def __str__(self) -> str:
        told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(self.outcomes.items()))
        return f"{self.outcomes.total()} examples in {self.seconds:.1f} s: {told or 'none'}"


class _TimeIsUp(BaseException):
    """Ends hypothesis's run at once, as an interrupt does."""


class FailureFoundError(AssertionError):
    """The smallest case that hypothesis found for a failure; `case` is plain JSON."""

    def __init__(self, target: str, case: Any, reason: str):
        self.target, self.case, self.reason = target, case, reason
        shown = json.dumps(case)
        super().__init__(f"{target}: {reason}\nthe case: {shown[:3000]}")


def fuzz(target: Target, *, max_examples: int, seed: int, seconds: float | None = None) -> Counts:
    """Check a target's property with many cases.

    Args:
        target: Whose cases.
        max_examples: Number of them.
        seed: Where they are drawn from; the same seed gives the same cases.
        seconds: After these no further case is begun; none is no bound.

    Raises:
        FailureFoundError: A case fails; the smallest one that was found.
    """
    counts, failed, start = Counts(), {}, time.monotonic()

    @with_seed(seed)
    @settings(
        max_examples=max_examples,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(target.cases)
    def one(case: Any) -> None:
        if seconds is not None and not failed and time.monotonic() - start > seconds:
            raise _TimeIsUp
        try:
            counts.outcomes[target.check(case)] += 1
        except Exception:
            failed["case"], failed["reason"] = case, traceback.format_exc()
            raise

    try:
        with _every_case_new():
            one()
    except _TimeIsUp:
        pass
    except Exception as error:
        if not failed:
            raise
        raise FailureFoundError(target.name, **failed) from error
    counts.seconds = time.monotonic() - start
    return counts


def _every_case_new():
    """Hypothesis makes five of six cases out of the one before by repeating parts of it, which finds little here."""
    if not hasattr(ConjectureRunner, "generate_mutations_from"):  # its own affair, so it may go
        return contextlib.nullcontext()
    return mock.patch.object(ConjectureRunner, "generate_mutations_from", return_value=None)


def write_failure(failure: FailureFoundError, folder: Path) -> Path:
    """A failure as a file for `replay`, named after its case."""
    content = {"target": failure.target, "case": failure.case, "reason": failure.reason.splitlines()}
    text = json.dumps(content, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(json.dumps(failure.case).encode()).hexdigest()[:12]
    path = folder / f"{failure.target}-{digest}.json"
    path.write_text(text, encoding="utf-8")
    return path


def replay(path: Path, targets: Mapping[str, Target] = TARGETS) -> str:
    """Run one failure's case again, with a deadline that leaves time to look at it.

    Returns:
        The outcome, where the property holds by now.

    Raises:
        AssertionError, Exception: As `Target.check`.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    target = targets[content["target"]]
    return dataclasses.replace(target, deadline=10 * target.deadline).check(content["case"])
