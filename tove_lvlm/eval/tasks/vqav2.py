"""VQAv2. Labels: the official questions and annotations, or LLaVA's question files.

See docs/evaluation.md, "VQA accuracy".
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...config import UserError
from ..io.answers import texts_of
from ..io.find import Layout
from ..io.items import Item, checked, llava_items, upload_id
from ..io.labels import annotated, annotators, load, rows_under
from ..io.problems import Problems
from ..io.rows import Row
from ..metrics import vqa
from ..metrics.score import Score, accuracy, by_group
from .base import SHORT_ANSWER, TASKS, Task


@TASKS.register("vqav2")
class VqaV2(Task):
    """Open questions about COCO images."""

    name = "vqav2"
    about = "open questions about COCO images; soft accuracy (%)"
    source = "visualqa.org/download.html (v2); LLaVA's question files: its eval.zip; images: COCO"
    layouts = (
        Layout(
            labels=("playground/data/eval/vqav2/llava_vqav2_mscoco_test-dev2015.jsonl",),
            images="playground/data/eval/vqav2/test2015",
        ),
        Layout(
            labels=("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"),
            images="val2014",
        ),
    )
    prompt = SHORT_ANSWER
    conventions = ("official", "lmms-eval")

    def read(self, labels: Sequence[Path], problems: Problems) -> list[Item]:
        """Questions with or without annotations, or a LLaVA question file; without annotations there are no labels."""
        items: list[Item] = []
        questions: list[tuple[Row, str]] = []
        annotations: list[Row] = []
        for path in map(Path, labels):
            content = load(path, problems)
            if isinstance(content, list):
                items.extend(llava_items(content, problems))
            elif "questions" in content:
                subset = str(content.get("data_subtype") or "val2014")
                questions.extend((row, subset) for row in rows_under(content, "questions", path, problems))
            elif "annotations" in content:
                annotations.extend(rows_under(content, "annotations", path, problems))
            else:
                raise UserError(f"file `{path}` is not of VQAv2: expected `questions` or `annotations` in it")
        golds = _golds(annotations, problems)
        for row, subset in questions:
            if not row.has(("question_id", "question", "image_id"), problems):
                continue
            question_id = row.text("question_id")
            if annotations and question_id not in golds:
                problems.add("question without annotation", question_id)
                continue
            items.append(self._item(row, subset, golds.get(question_id)))
        question_ids = {item.question_id for item in items}
        problems.add_all("annotation without question", (each for each in golds if each not in question_ids))
        return checked(items, labels, problems, "the official questions, or rows of `question_id, image, text`")

    def _item(self, row: Row, subset: str, gold: vqa.Gold | None) -> Item:
        # test-dev and test-std are parts of the image set test2015.
        image_set = subset.replace("-dev", "").replace("-std", "")
        return Item(
            question_id=row.text("question_id"),
            image=row.text("image") or f"COCO_{image_set}_{row.text('image_id'):0>12}.jpg",
            text=self.prompt.format(question=row.text("question")),
            gold=gold,
            group=gold.answer_type if gold else "",
        )

    def score(self, items: Sequence[Item], answers: Mapping[str, str], convention: str, problems: Problems) -> Score:
        """Soft accuracy, overall and for each answer type and question type.

        `official` is the challenge's script: percents with two decimals, unanimous annotators compared as they are.
        `lmms-eval` always normalises and reports fractions.
        """
        official = convention == "official"
        scale, digits = (100.0, 2) if official else (1.0, None)
        texts = texts_of(items, answers, problems)
        values = vqa.soft_accuracies(texts, [item.gold for item in items], "vqav2", unanimous_as_is=official)
        labelled = [
            (f"{kind}/{getattr(item.gold, kind)}", value)
            for item, value in zip(items, values, strict=True)
            for kind in ("answer_type", "question_type")
            if getattr(item.gold, kind)
        ]
        return Score(
            metrics={"accuracy": accuracy(values, scale, digits)},
            groups=by_group(labelled, scale, digits),
            num_items=len(items),
        )

    def upload(self, items: Sequence[Item], answers: Mapping[str, str]) -> Any:
        """Rows of `question_id, answer` as LLaVA's converter writes them: normalised as m4c does, '' where missing.

        The server wants all of test2015, so `items` should be those of `llava_vqav2_mscoco_test2015.jsonl` even where
        only test-dev was answered.
        """
        return [
            {
                "question_id": upload_id(item.question_id),
                "answer": vqa.normalize(answers.get(item.question_id, ""), "m4c"),
            }
            for item in items
        ]


def _golds(annotations: Sequence[Row], problems: Problems) -> dict[str, vqa.Gold]:
    golds: dict[str, vqa.Gold] = {}
    for row in annotations:
        if not (row.has(("question_id",), problems) and annotated(row, problems)):
            continue
        question_id, answers = row.text("question_id"), annotators(row, problems)
        if question_id in golds:
            problems.add("duplicate annotation", question_id)
        else:
            golds[question_id] = vqa.Gold(
                answers=answers, question_type=row.text("question_type"), answer_type=row.text("answer_type")
            )
    return golds
