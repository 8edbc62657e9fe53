"""Yes-or-no answers: the four counts and what follows from them.

See docs/evaluation.md, "POPE".
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .vqa_normalize import strip_punctuation


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts, with "yes" as the positive class. Each question is in one of the five."""

    tp: int
    fp: int
    tn: int
    fn: int
    undecided: int
    """Neither yes nor no was said, and it is not among the misses `fn`."""

    def metrics(self, scale: float = 1.0) -> dict[str, float]:
        """F1 first, then accuracy over all questions, precision, recall, share of "yes" among all, and the counts.

        Args:
            scale: 100 gives percents. A quotient whose denominator is zero is 0.
        """
        n = self.tp + self.fp + self.tn + self.fn + self.undecided
        precision, recall = _ratio(self.tp, self.tp + self.fp), _ratio(self.tp, self.tp + self.fn)
        rates = {
            "f1": _ratio(2 * precision * recall, precision + recall),
            "accuracy": _ratio(self.tp + self.tn, n),
            "precision": precision,
            "recall": recall,
            "yes_ratio": _ratio(self.tp + self.fp, n),
        }
        return {name: scale * value for name, value in rates.items()} | vars(self) | {"n": n}


def count(predicted: Sequence[bool | None], gold: Sequence[bool], undecided_misses: bool = True) -> Confusion:
    """Confusion of predictions with labels.

    Args:
        predicted: True for "yes", None where neither was said.
        gold: Labels in the same order.
        undecided_misses: Whether an undecided answer to a question with label "yes" counts in `fn`.
    """
    cells = dict.fromkeys(("tp", "fp", "tn", "fn", "undecided"), 0)
    for prediction, label in zip(predicted, gold, strict=True):
        if prediction is None:
            cells["fn" if label and undecided_misses else "undecided"] += 1
        else:
            cells[("t" if prediction == label else "f") + ("p" if prediction else "n")] += 1
    return Confusion(**cells)


def yes_or_no(text: str) -> bool | None:
    """VLMEvalKit's reading: the word "yes" or the word "no" is there, and not the other; None otherwise."""
    words = strip_punctuation(text.lower()).split()
    return None if ("yes" in words) == ("no" in words) else "yes" in words


def _ratio(part: float, total: float) -> float:
    return part / total if total else 0.0
