"""VizWiz-VQA. Labels: the official annotations, or LLaVA's question file.

See docs/evaluation.md, "VizWiz".
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..io.answers import texts_of
from ..io.find import Layout
from ..io.items import Item, checked, llava_items
from ..io.labels import annotated, annotators
from ..io.problems import Problems
from ..io.rows import Row, read_rows
from ..metrics import vqa
from ..metrics.score import Score, accuracy, by_group
from .base import TASKS, Task

_UNANSWERABLE = "unanswerable"


@TASKS.register("vizwiz")
class VizWiz(Task):
    """Questions that blind people asked about their photographs; some cannot be answered."""

    name = "vizwiz"
    about = "blind people's questions, some unanswerable; soft accuracy (%), answerability"
    source = "vizwiz.org/tasks-and-datasets/vqa; LLaVA's question file: its eval.zip"
    layouts = (
        Layout(
            labels=("playground/data/eval/vizwiz/llava_test.jsonl",),
            images="playground/data/eval/vizwiz/test",
        ),
        Layout(labels=("Annotations/val.json",), images="val"),
    )
    prompt = (
        "{question}\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n"
        "Answer the question using a single word or phrase."
    )
    conventions = ("m4c", "official")

    def read(self, labels: Sequence[Path], problems: Problems) -> list[Item]:
        """Official files, or LLaVA's `llava_test.jsonl`; an official question is called by its image."""
        items: list[Item] = []
        for path in map(Path, labels):
            rows = read_rows(path, problems)
            for row in rows:
                if "question" not in row.fields:
                    items.extend(llava_items([row], problems))
                elif row.has(("image", "question"), problems) and (
                    "answers" not in row.fields or annotated(row, problems)
                ):
                    items.append(self._item(row, problems))
        return checked(items, labels, problems, "rows of `image, question, answers`, or of `question_id, image, text`")

    def _item(self, row: Row, problems: Problems) -> Item:
        image = row.text("image")
        answer_type = row.text("answer_type")
        gold = None
        if "answers" in row.fields:
            answerable = row.fields.get("answerable")
            gold = vqa.Gold(
                answers=annotators(row, problems),
                answer_type=answer_type,
                answerable=None if answerable is None else bool(answerable),
            )
        return Item(
            question_id=image,
            image=image,
            text=self.prompt.format(question=row.text("question")),
            gold=gold,
            group=answer_type,
            aliases=(Path(image).stem,),
        )

    def score(self, items: Sequence[Item], answers: Mapping[str, str], convention: str, problems: Problems) -> Score:
        """Percents with two decimals: soft accuracy, overall and by answer type, and how well "unanswerable" was told.

        `m4c` normalises answers as LLaVA's uploads and lmms-eval do, `official` as the challenge's script does. A
        missing answer is wrong, and does not say "unanswerable". Without `answerable` labels on every question, or
        where all are answerable, there are no figures for it.
        """
        texts = texts_of(items, answers, problems)
        rules: vqa.Convention = "m4c" if convention == "m4c" else "vqav2"
        values = vqa.soft_accuracies(texts, [item.gold for item in items], rules)
        metrics = {"accuracy": accuracy(values, 100.0, 2)}
        answerable = [item.gold.answerable for item in items]
        notes: tuple[str, ...] = ()
        if all(label is True for label in answerable):
            notes = ("every question is answerable: no figures for unanswerable ones",)
        elif None not in answerable:
            predictions = [vqa.normalize(text or "", rules) != _UNANSWERABLE for text in texts]
            rates = vqa.answerability(predictions, answerable)
            metrics |= {f"unanswerable_{name}": round(100 * value, 2) for name, value in rates.items()}
        labelled = [
            (f"answer_type/{item.group}", value) for item, value in zip(items, values, strict=True) if item.group
        ]
        return Score(metrics=metrics, groups=by_group(labelled, 100.0, 2), num_items=len(items), notes=notes)

    def upload(self, items: Sequence[Item], answers: Mapping[str, str]) -> Any:
        """Rows of `image, answer` as LLaVA's converter writes them: normalised as m4c does; '' where missing."""
        return [
            {"image": item.image, "answer": vqa.normalize(answers.get(item.question_id, ""), "m4c")} for item in items
        ]
