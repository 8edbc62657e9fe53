"""The range of a number of a YAML, stated beside the field: `field(default=0.1, metadata=number(low=0, below=1))`.

`parsing` checks it, for each number of a list too, before anything is loaded. A number without a range of its own must
be finite, and a whole number must fit into 32 bits.
"""

import math
from dataclasses import dataclass
from typing import Any

LARGEST_INT = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Range:
    """Which numbers a field may be. See `number`."""

    low: float | None = None
    above: float | None = None
    high: float | None = None
    below: float | None = None
    also: tuple[int, ...] = ()

    def __contains__(self, value: float) -> bool:
        if value in self.also:
            return True
        return not (
            (self.low is not None and value < self.low)
            or (self.above is not None and value <= self.above)
            or (self.high is not None and value > self.high)
            or (self.below is not None and value >= self.below)
        )

    def __str__(self) -> str:
        bounds = {"at least": self.low, "above": self.above, "at most": self.high, "below": self.below}
        told = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
        return " or ".join([*map(str, self.also), told]) if told else "a finite number"


FINITE = Range()


def number(
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
    also: tuple[int, ...] = (),
    **more: Any,
) -> dict[str, Any]:
    """Metadata of a field that is a number, or a list of numbers.

    Args:
        low: Least one.
        above: What it must be greater than.
        high: Greatest one.
        below: What it must be less than.
        also: Numbers out of the range that mean something else, as -1 for none.
        **more: Further metadata.
    """
    return {"range": Range(low=low, above=above, high=high, below=below, also=also), **more}


def unfit(value: float, allowed: Range) -> str | None:
    """What a number should be; None where it is that.

    Args:
        value: The number.
        allowed: Its range.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(allowed) if allowed == FINITE else f"a finite number, {allowed}"
    if value not in allowed:
        return str(allowed)
    if isinstance(value, int) and abs(value) > LARGEST_INT and allowed.high is None:
        return f"at most {LARGEST_INT}"
    return None
