"""TextVQA, without and with OCR tokens in the prompt. Labels: `TextVQA_0.5.1_val.json`.

LLaVA's published figures are with OCR tokens, from its question file `llava_textvqa_val_v051_ocr.jsonl`.

See docs/evaluation.md, "TextVQA".
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ...config import UserError
from ..io.answers import question_key, texts_of
from ..io.find import Layout
from ..io.items import Item, checked
from ..io.labels import annotated, annotators, load, rows_under
from ..io.problems import Problems
from ..io.rows import Row
from ..metrics import vqa
from ..metrics.score import Score, accuracy
from .base import SHORT_ANSWER, TASKS, Task

_LLAVA = "playground/data/eval/textvqa"


@TASKS.register("textvqa")
class TextVqa(Task):
    """Questions about the text in images."""

    name = "textvqa"
    about = "questions about text in images, without OCR tokens; soft accuracy (%)"
    source = "textvqa.org/dataset (v0.5.1); LLaVA's question files: its eval.zip"
    layouts = (
        Layout(labels=(f"{_LLAVA}/TextVQA_0.5.1_val.json",), images=f"{_LLAVA}/train_images"),
        Layout(labels=("TextVQA_0.5.1_val.json",), images="train_images"),
    )
    prompt = SHORT_ANSWER
    ocr: ClassVar[bool] = False
    """Whether the prompt names the words that an OCR system found."""

    def read(self, labels: Sequence[Path], problems: Problems) -> list[Item]:
        """The official file; for OCR also LLaVA's question file, whose prompts are then asked as they stand, or the
        official Rosetta tokens (`{"data": [{image_id, ocr_tokens}]}`), unless the rows have `ocr_tokens` themselves.

        An item may be answered under its `question_id`, or as in LLaVA's files under its image's id and the question.
        """
        rows: list[Row] = []
        llava_prompts: dict[str, str] = {}
        tokens: dict[str, list[str]] = {}
        for path in map(Path, labels):
            content = load(path, problems)
            if isinstance(content, list):
                llava_prompts.update(_prompts(content, problems))
            elif "data" in content:
                for row in rows_under(content, "data", path, problems):
                    if "question" in row.fields or "ocr_tokens" not in row.fields:
                        rows.append(row)
                    elif row.has(("image_id",), problems):
                        tokens[row.text("image_id")] = row.fields["ocr_tokens"]
            else:
                raise UserError(f"file `{path}` is not of TextVQA: expected `data` in it")
        items = []
        for row in rows:
            public = "answers" in row.fields
            if row.has(("question_id", "image_id", "question"), problems) and (not public or annotated(row, problems)):
                key = question_key(row.text("image_id"), row.text("question"))
                items.append(self._item(row, key, self._ask(row, llava_prompts.get(key), tokens), problems))
        return checked(items, labels, problems, "`data` with `question_id, image_id, question, answers`")

    def _item(self, row: Row, key: str, text: str, problems: Problems) -> Item:
        return Item(
            question_id=row.text("question_id"),
            image=f"{row.text('image_id')}.jpg",
            text=text,
            gold=vqa.Gold(answers=annotators(row, problems)) if "answers" in row.fields else None,
            aliases=(key,),
        )

    def _ask(self, row: Row, llava_prompt: str | None, tokens: Mapping[str, list[str]]) -> str:
        question, image_id = row.text("question"), row.text("image_id")
        if not self.ocr:
            return self.prompt.format(question=question)
        if llava_prompt is not None:
            return llava_prompt
        ocr_tokens = row.fields.get("ocr_tokens", tokens.get(image_id))
        if not isinstance(ocr_tokens, list):
            raise UserError(
                f"{row.where}: no OCR tokens for image `{image_id}`; add LLaVA's question file or Rosetta's"
            )
        return self.prompt.format(question=question, ocr=", ".join(map(str, ocr_tokens)))

    def score(self, items: Sequence[Item], answers: Mapping[str, str], convention: str, problems: Problems) -> Score:
        """Soft accuracy as m4c's and LLaVA's scripts: always normalised, percent with two decimals."""
        texts = texts_of(items, answers, problems)
        values = vqa.soft_accuracies(texts, [item.gold for item in items], "m4c")
        return Score(metrics={"accuracy": accuracy(values, 100.0, 2)}, num_items=len(items))


@TASKS.register("textvqa_ocr")
class TextVqaOcr(TextVqa):
    """The same with OCR tokens, as LLaVA-1.5 was measured."""

    name = "textvqa_ocr"
    about = "questions about text in images, OCR tokens in the prompt as LLaVA has them; soft accuracy (%)"
    layouts = (
        Layout(
            labels=(f"{_LLAVA}/TextVQA_0.5.1_val.json", f"{_LLAVA}/llava_textvqa_val_v051_ocr.jsonl"),
            images=f"{_LLAVA}/train_images",
        ),
        Layout(labels=("TextVQA_0.5.1_val.json", "TextVQA_Rosetta_OCR_v0.2_val.json"), images="train_images"),
    )
    prompt = "{question}\nReference OCR token: {ocr}\nAnswer the question using a single word or phrase."
    ocr = True


def _prompts(rows: Sequence[Row], problems: Problems) -> dict[str, str]:
    return {
        question_key(row.text("question_id"), row.text("text")): row.text("text")
        for row in rows
        if row.has(("question_id", "text"), problems)
    }
