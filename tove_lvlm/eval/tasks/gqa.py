"""GQA. Labels: `testdev_balanced_questions.json`, or LLaVA's question file.

See docs/evaluation.md, "GQA".
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..io.answers import texts_of
from ..io.find import Layout
from ..io.items import Item, checked, llava_items
from ..io.labels import load
from ..io.problems import Problems
from ..io.rows import Row
from ..metrics import gqa
from ..metrics.score import Score, accuracy, by_group
from .base import SHORT_ANSWER, TASKS, Task

_LLAVA = "playground/data/eval/gqa"


@TASKS.register("gqa")
class Gqa(Task):
    """Compositional questions made from scene graphs."""

    name = "gqa"
    about = "compositional questions; exact match (%)"
    source = "cs.stanford.edu/people/dorarad/gqa/download.html (balanced test-dev)"
    layouts = (
        Layout(labels=(f"{_LLAVA}/data/testdev_balanced_questions.json",), images=f"{_LLAVA}/data/images"),
        Layout(labels=("testdev_balanced_questions.json",), images="images"),
    )
    prompt = SHORT_ANSWER
    conventions = gqa.CONVENTIONS

    def read(self, labels: Sequence[Path], problems: Problems) -> list[Item]:
        """Official files (questions that are not in the balanced set are not asked), or LLaVA's, without labels."""
        items: list[Item] = []
        for path in map(Path, labels):
            content = load(path, problems)
            if isinstance(content, list):
                items.extend(llava_items(content, problems))
                continue
            for number, (question_id, fields) in enumerate(content.items(), start=1):
                row = Row(path.name, number, fields if isinstance(fields, dict) else {})
                if row.has(("question", "imageId"), problems) and row.fields.get("isBalanced", True):
                    items.append(self._item(question_id, row))
        return checked(items, labels, problems, "question id -> `question, imageId, answer`")

    def _item(self, question_id: str, row: Row) -> Item:
        gold = None
        if "answer" in row.fields:
            kinds = row.fields.get("types")
            types = row._replace(fields=kinds if isinstance(kinds, dict) else {})
            gold = gqa.Gold(
                answer=row.text("answer"), structural=types.text("structural"), semantic=types.text("semantic")
            )
        return Item(
            question_id=question_id,
            image=f"{row.text('imageId')}.jpg",
            text=self.prompt.format(question=row.text("question")),
            gold=gold,
            group=next(iter(gold.groups()), "") if gold else "",
        )

    def score(self, items: Sequence[Item], answers: Mapping[str, str], convention: str, problems: Problems) -> Score:
        """Accuracy overall, on binary and open questions and by structural and semantic type.

        `official` reports percents, `lmms-eval` fractions.
        """
        scale = 100.0 if convention == "official" else 1.0
        values = [
            float(text is not None and gqa.is_right(text, item.gold.answer, convention))
            for item, text in zip(items, texts_of(items, answers, problems), strict=True)
        ]
        labelled = [(group, value) for item, value in zip(items, values, strict=True) for group in item.gold.groups()]
        return Score(
            metrics={"accuracy": accuracy(values, scale)},
            groups=by_group(labelled, scale),
            num_items=len(items),
        )

    def upload(self, items: Sequence[Item], answers: Mapping[str, str]) -> Any:
        """Rows of `questionId, prediction`, which the official script takes; '' where missing."""
        return [
            {"questionId": item.question_id, "prediction": gqa.prediction(answers.get(item.question_id, ""))}
            for item in items
        ]
