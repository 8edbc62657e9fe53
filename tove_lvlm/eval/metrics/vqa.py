"""Soft accuracy against ten annotators, of VQAv2, TextVQA and VizWiz; VizWiz' answerability.

See docs/evaluation.md, "VQA accuracy".
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .vqa_normalize import Convention, normalize, one_line

__all__ = ["Gold", "answerability", "normalize", "soft_accuracies", "soft_accuracy"]


@dataclass(frozen=True, kw_only=True)
class Gold:
    """What people said about one question."""

    answers: tuple[str, ...]
    """One for each annotator; ten in the official files."""
    question_type: str = ""
    answer_type: str = ""
    answerable: bool | None = None
    """VizWiz only."""


def soft_accuracy(
    answer: str, annotators: Sequence[str], convention: Convention = "vqav2", unanimous_as_is: bool = False
) -> float:
    """Mean over the annotators of min(1, how many of the others gave this answer / 3), in [0, 1].

    Args:
        answer: The model's.
        annotators: Their answers, at least one.
        convention: How answers are normalised.
        unanimous_as_is: The VQA challenge's script normalises nothing where all annotators wrote the same, so that
            "Yes" against ten "yes" is wrong there.
    """
    answer, annotators = one_line(answer), [one_line(other) for other in annotators]
    if not (unanimous_as_is and len(set(annotators)) == 1):
        answer, annotators = normalize(answer, convention), [normalize(other, convention) for other in annotators]
    num_same = annotators.count(answer)
    return sum(min(1.0, (num_same - (other == answer)) / 3) for other in annotators) / len(annotators)


def soft_accuracies(
    answers: Sequence[str | None], golds: Sequence[Gold], convention: Convention, unanimous_as_is: bool = False
) -> list[float]:
    """`soft_accuracy` of each answer; 0 where there is none."""
    return [
        0.0 if answer is None else soft_accuracy(answer, gold.answers, convention, unanimous_as_is)
        for answer, gold in zip(answers, golds, strict=True)
    ]


def answerability(predicted: Sequence[bool], gold: Sequence[bool]) -> dict[str, float]:
    """How well "unanswerable" was told, the positive class: average precision and F1, in [0, 1].

    Args:
        predicted: Whether the model answered.
        gold: Whether the question can be answered from the image.
    """
    num_said, num_positive = predicted.count(False), gold.count(False)
    hits = sum(not prediction and not label for prediction, label in zip(predicted, gold, strict=True))
    precision = hits / num_said if num_said else 0.0
    recall = hits / num_positive if num_positive else 0.0
    # Two thresholds: those said to be unanswerable, then everything.
    average_precision = recall * precision + (1 - recall) * num_positive / len(gold)
    f1 = 2 * hits / (num_said + num_positive) if hits else 0.0
    return {"average_precision": average_precision, "f1": f1}
