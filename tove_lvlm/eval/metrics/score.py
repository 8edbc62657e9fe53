"""What a scorer gives, and mean accuracy, overall and over parts of a benchmark."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a scorer found."""

    metrics: dict[str, float]
    """Name -> value over all items, the headline first; in the units that the convention reports."""
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    """Part of the benchmark -> its own metrics, `n` among them."""
    num_items: int
    notes: tuple[str, ...] = ()
    """Sentences for who reads the score: what was left out of it, and what to do about that."""


def normalize(answer: str) -> str:
    """Lower case, without surrounding blanks and a final full stop: of exact match, where a benchmark has no rules."""
    return answer.strip().rstrip(".").strip().lower()


def accuracy(values: Sequence[float], scale: float = 1.0, digits: int | None = None) -> float:
    """Scaled mean, 0 for nothing, rounded if `digits` is given."""
    mean = scale * sum(values) / len(values) if values else 0.0
    return mean if digits is None else round(mean, digits)


def by_group(
    labelled: Iterable[tuple[str, float]], scale: float = 1.0, digits: int | None = None
) -> dict[str, dict[str, float]]:
    """Group -> `accuracy` and `n`, groups sorted by name.

    Args:
        labelled: Group and value of each question; a question may come in several groups.
        scale: 100 gives percents.
        digits: As for `accuracy`.
    """
    groups: dict[str, list[float]] = defaultdict(list)
    for group, value in labelled:
        groups[group].append(value)
    return {
        name: {"accuracy": accuracy(values, scale, digits), "n": len(values)} for name, values in sorted(groups.items())
    }
