"""Questions of one's own: a JSON line each, with the right answer, the group that it is scored in, and choices.

    {"question_id": "1", "image": "a.png", "text": "What is this?", "answer": "cat", "family": "naming",
     "choices": ["cat", "dog"]}

`choices` are of `questions_likelihood` only. The form is ours; `tove demo` and projects/real_small write it.

See docs/evaluation.md, "Questions of your own".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..io.answers import texts_of
from ..io.find import Layout
from ..io.items import Item, checked
from ..io.problems import Problems
from ..io.rows import Row, read_rows
from ..metrics.score import Score, accuracy, by_group, normalize
from .base import LIKELIHOOD, TASKS, Task

_FIELDS = ("question_id", "image", "text", "answer")


@dataclass(frozen=True)
class Gold:
    """The right answer."""

    answer: str


@TASKS.register("questions")
class Questions(Task):
    """Asked as they stand, answered in words; case and a final full stop do not count."""

    name = "questions"
    about = "questions of your own; exact match, by family"
    source = "a file of your own: JSON lines of `question_id, image, text, answer, family, choices`"
    layouts = (
        Layout(
            labels=("playground/data/eval/questions/questions.jsonl",), images="playground/data/eval/questions/images"
        ),
        Layout(labels=("questions.jsonl",), images="images"),
    )
    prompt = "{question}"
    needs_choices = False

    def read(self, labels: Sequence[Path], problems: Problems) -> list[Item]:
        """Rows of `question_id, image, text, answer`, with `family` and `choices` where there are such."""
        items = []
        for path in map(Path, labels):
            for row in read_rows(path, problems):
                choices = _choices(row) if self.needs_choices else ()
                if choices is None:
                    problems.add("row without two `choices` or more that hold the answer", row.where)
                elif row.has(_FIELDS, problems):
                    items.append(self._item(row, choices))
        return checked(items, labels, problems, f"rows of `{', '.join(_FIELDS)}`")

    def _item(self, row: Row, choices: tuple[str, ...]) -> Item:
        return Item(
            question_id=row.text("question_id"),
            image=row.text("image"),
            text=self.prompt.format(question=row.text("text")),
            gold=Gold(row.text("answer")),
            group=row.text("family"),
            choices=choices,
        )

    def score(self, items: Sequence[Item], answers: Mapping[str, str], convention: str, problems: Problems) -> Score:
        """Fractions: accuracy overall and by family."""
        values = [
            float(text is not None and normalize(text) == normalize(item.gold.answer))
            for item, text in zip(items, texts_of(items, answers, problems), strict=True)
        ]
        labelled = [(item.group, value) for item, value in zip(items, values, strict=True) if item.group]
        return Score(metrics={"accuracy": accuracy(values)}, groups=by_group(labelled), num_items=len(items))


@TASKS.register("questions_likelihood")
class QuestionsLikelihood(Questions):
    """The likelihoods of each question's choices are compared."""

    name = "questions_likelihood"
    about = "questions of your own, the likeliest of each question's choices; exact match, by family"
    form = LIKELIHOOD
    needs_choices = True


def _choices(row: Row) -> tuple[str, ...] | None:
    """The row's choices; None where they are no list of different texts, or the answer is none of them."""
    choices = row.fields.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, str) and choice.strip() for choice in choices):
        return None
    fits = len(set(choices)) == len(choices) >= 2 and row.text("answer") in choices
    return tuple(choices) if fits else None
