"""Which experts to take out: greedy, by leave-one-out, every remaining expert measured anew after each removal.

Anew, because experts stand in for one another: each of two redundant ones can go, both cannot. Pure: what measures is
passed in. The four rules are ours (the paper detaches the experts that bring least).

Units: loss in nats per answer token, score in percentage points of answers right, time in ms per image.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..config import UserError

Attached = tuple[str, ...]
KEEP, MIN_GAIN, BUDGET_MS, MAX_DROP = "keep", "min_gain", "budget_ms", "max_drop"
_ROUNDING = 1e-9  # of shares of answers: 92 % - 90 % must count as 2 points


class Measured(Protocol):
    """What a set of attached experts is worth; `probe.Quality` is one."""

    @property
    def loss(self) -> float | None: ...
    @property
    def score(self) -> float | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One expert that might go next."""

    expert: str
    loss: float
    """Without it."""
    score: float | None
    """Share of answers right without it, 0 to 1."""
    gain: float
    """What it brings: how much the loss rises when it goes."""
    ms: float | None
    """Its own cost per image, where known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One round: what was attached, what each removal would do, and which one was made."""

    attached: Attached
    loss: float
    score: float | None
    tower_ms: float | None
    """Of the tower with `attached`, where the rule asks for it."""
    candidates: tuple[Candidate, ...]
    """Empty when the rule was met without looking."""
    removed: str | None
    """None in the last round: the rule says stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The outcome and the whole way there."""

    attached: Attached
    removed: Attached
    """In the order of their going."""
    steps: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """When to stop, and who goes next.

    Raises:
        UserError: The limit makes no sense for this rule.
    """

    name: str
    """`keep`: the expert whose going raises the loss least goes, until `limit` are left. `min_gain`: that expert goes
    as long as the rise is below `limit`. `budget_ms`: least rise per ms saved goes first (one whose going does not
    raise the loss before all others), until the tower takes at most `limit` ms per image; where the next one would be
    the last, the one of those that could be the last that raises the loss least. `max_drop`: the one that
    leaves the best score goes (least loss among equals), as long as the score stays within `limit` points of the
    start; without scores the same with the loss in nats."""
    limit: float

    @property
    def option(self) -> str:
        """As it is written on the command line."""
        return f"--{self.name.replace('_', '-')}"

    def __post_init__(self):
        if not math.isfinite(self.limit):
            raise UserError(f"`{self.option}` is {self.limit}; expected a number")
        if self.name == KEEP and (self.limit < 0 or self.limit != int(self.limit)):
            raise UserError(f"`{self.option}` is {self.limit}; expected how many experts stay, 0 or more")
        if self.name in (BUDGET_MS, MAX_DROP) and self.limit < 0:
            raise UserError(f"`{self.option}` is {self.limit}; expected 0 or more")


def choose(
    attached: Sequence[str],
    quality: Callable[[Sequence[Attached]], Sequence[Measured]],
    rule: Rule,
    cost: Mapping[str, float] | None = None,
    tower_ms: Callable[[Attached], float] | None = None,
) -> Choice:
    """Follow a rule; equals are settled by the higher cost, then by the order of `attached`.

    Args:
        attached: The experts that may go.
        quality: Sets of attached experts to what each is worth; called once a round, so that a pass over the data
            serves all candidates.
        rule: Which, and its limit.
        cost: Expert to ms per image; `budget_ms` needs it.
        tower_ms: The tower's ms per image with a set attached; `budget_ms` needs it.

    Raises:
        UserError: There is nothing to remove, the limit cannot be reached, or there is no loss to go by.
    """
    cost = dict(cost or {})
    timed = functools.cache(tower_ms or _untimed)
    attached_now = tuple(attached)
    _check_reachable(rule, attached_now, timed)
    steps: list[Step] = []
    start: Measured | None = None
    current: Measured | None = None
    while True:
        time = timed(attached_now) if rule.name == BUDGET_MS else None
        met = (
            not attached_now
            or (rule.name == KEEP and len(attached_now) <= rule.limit)
            or (time is not None and time <= rule.limit)
        )
        without = [] if met else [tuple(name for name in attached_now if name != dropped) for dropped in attached_now]
        if start is None or current is None:  # never met yet, or `_check_reachable` would have said so
            start, *measured = quality([attached_now, *without])
            current = start
            _check_loss(start.loss, attached_now)
        else:
            measured = list(quality(without)) if without else []
        candidates = [
            _candidate(name, current, after, cost.get(name))
            for name, after in zip(attached_now[: len(without)], measured, strict=True)
        ]
        dropped = None if met else _next(rule, start, candidates, time)
        steps.append(
            Step(
                attached=attached_now,
                loss=_check_loss(current.loss, attached_now),
                score=current.score,
                tower_ms=time,
                candidates=tuple(candidates),
                removed=dropped.expert if dropped else None,
            )
        )
        if dropped is None:
            break
        current = measured[candidates.index(dropped)]
        attached_now = tuple(name for name in attached_now if name != dropped.expert)
    removed = tuple(step.removed for step in steps if step.removed is not None)
    return Choice(attached=attached_now, removed=removed, steps=tuple(steps))


def _candidate(expert: str, current: Measured, without: Measured, ms: float | None) -> Candidate:
    loss = _check_loss(without.loss, expert)
    gain = loss - _check_loss(current.loss, expert)
    return Candidate(expert=expert, loss=loss, score=without.score, gain=gain, ms=ms)


def _next(rule: Rule, start: Measured, candidates: Sequence[Candidate], time: float | None) -> Candidate | None:
    """Who goes, or None when the rule lets nobody go. `min` keeps the first among equals."""
    if rule.name == MAX_DROP and start.score is not None:
        # With a score at the start there is one of every candidate: the same answers are judged.
        best = min(candidates, key=lambda c: (-(c.score or 0.0), c.loss, *_tie_break(c)))
        return best if 100 * (start.score - (best.score or 0.0)) <= rule.limit + _ROUNDING else None
    if rule.name == BUDGET_MS and time is not None:
        best = min(candidates, key=lambda c: (*_per_ms(c), *_tie_break(c)))
        last = [c for c in candidates if time - (c.ms or 0.0) <= rule.limit + _ROUNDING]
        return min(last, key=_by_loss) if best in last else best
    least = min(candidates, key=_by_loss)
    if rule.name == MIN_GAIN:
        return least if least.gain < rule.limit else None
    if rule.name == MAX_DROP:
        return least if least.loss - _check_loss(start.loss, "at the start") <= rule.limit + _ROUNDING else None
    return least


def _by_loss(candidate: Candidate) -> tuple[float, float]:
    return (candidate.loss, *_tie_break(candidate))


def _tie_break(candidate: Candidate) -> tuple[float]:
    return (-(candidate.ms or 0.0),)


def _per_ms(candidate: Candidate) -> tuple[bool, float]:
    """A loss that does not rise is free, whatever it saves; dividing a fall by the time would favour cheap experts."""
    if candidate.gain <= 0:
        return False, candidate.gain
    return True, candidate.gain / max(candidate.ms or 0.0, _ROUNDING)


def _untimed(attached: Attached) -> float:
    raise ValueError("a budget in ms needs `tower_ms`")


def _check_reachable(rule: Rule, attached: Attached, tower_ms: Callable[[Attached], float]) -> None:
    if not attached:
        raise UserError("no expert is attached; there is nothing to remove")
    if rule.name == KEEP and rule.limit >= len(attached):
        raise UserError(
            f"`--keep` is {int(rule.limit)} and {len(attached)} experts are attached ({', '.join(attached)}): nothing "
            "to remove"
        )
    if rule.name == BUDGET_MS:
        alone, all_experts = tower_ms(()), tower_ms(attached)
        if alone > rule.limit:
            raise UserError(
                f"`--budget-ms` is {rule.limit:g}, but CLIP alone costs {alone:.3g} ms per image; no choice of experts "
                "is faster than that"
            )
        if all_experts <= rule.limit:
            raise UserError(
                f"`--budget-ms` is {rule.limit:g} and the tower takes {all_experts:.3g} ms per image: nothing to remove"
            )


def _check_loss(loss: float | None, where: object) -> float:
    if loss is None:
        raise UserError("there is no loss to choose by: the data has no answers or the checkpoint no language model")
    if not math.isfinite(loss):
        raise UserError(f"the loss is {loss} ({where}); experts cannot be compared by it")
    return loss
