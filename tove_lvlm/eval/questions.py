"""Each question of a benchmark by itself: what was answered, what is right, how much the answer is worth.

Every task scores sets; a set of one question says what that question is worth, by the task's own rules.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .benchmark import Benchmark
from .io.items import Item
from .io.problems import Problems

RIGHT = 0.5
"""What an answer is worth that counts as right: VQA's accuracy is soft."""
_ACCURACY = "accuracy"


@dataclass(frozen=True, kw_only=True)
class ScoredAnswer:
    """One question with its answer."""

    item: Item
    text: str
    """The model's answer."""
    expected: str
    """The right one for people to read; of several annotators the most frequent."""
    share: float
    """What the answer is worth, in [0, 1]."""

    @property
    def is_right(self) -> bool:
        """Whether it is worth at least half."""
        return self.share >= RIGHT


def scored_answers(benchmark: Benchmark, texts: Mapping[str, str]) -> Iterator[ScoredAnswer]:
    """The answered questions that have a label, in an order that depends on their ids alone and follows no file.

    Nothing comes of a benchmark whose score is none of single questions, such as captions.

    Args:
        benchmark: With labels.
        texts: Question id -> answer.
    """
    answered = [item for item in benchmark.items if item.gold is not None and item.question_id in texts]
    for item in sorted(answered, key=lambda item: hashlib.sha256(item.question_id.encode("utf-8", "replace")).digest()):
        text = texts[item.question_id]
        if (expected := expected_text(item)) is None:
            return
        share = share_of(benchmark, item, text)
        if share is None:
            return
        yield ScoredAnswer(item=item, text=text, expected=expected, share=share)


def share_of(benchmark: Benchmark, item: Item, text: str | None) -> float | None:
    """What an answer is worth by the task's own rules, in [0, 1]; None where the task has no accuracy.

    Args:
        benchmark: Whose convention counts.
        item: The question, with a label.
        text: The answer; None where there is none, which is another thing than an empty one.
    """
    answers = {} if text is None else {item.question_id: text}
    score = benchmark.task.score([item], answers, benchmark.convention, Problems())
    accuracy = score.metrics.get(_ACCURACY)
    if accuracy is None:
        return None
    # Some conventions report percents. One question is worth nothing or several percent, so more than 1 is one.
    return accuracy / 100 if accuracy > 1 else accuracy


def expected_text(item: Item) -> str | None:
    """The right answer for people; None where it is not public, or no single text is right, as of captions."""
    gold = item.gold
    if isinstance(gold, bool):
        return "yes" if gold else "no"
    answers = getattr(gold, "answers", None)
    if answers:
        return Counter(answers).most_common(1)[0][0]
    answer = getattr(gold, "answer", None)
    return answer if isinstance(answer, str) else None
