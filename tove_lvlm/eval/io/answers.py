"""Answers files: reading them, and finding which question each row answers.

Rows may be LLaVA's (`question_id, prompt, text, ...`), those of the test servers' upload files (`question_id, answer`;
`questionId, prediction`; `image, answer`; `image_id, caption`), or without an id (`question, answer`, as POPE has it).
"""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...config import UserError
from .items import Item
from .problems import Problems
from .rows import Row, read_rows

logger = logging.getLogger(__name__)

_ID_FIELDS = ("question_id", "questionId", "image_id", "image")
_TEXT_FIELDS = ("text", "answer", "prediction", "caption")
_PROMPT_FIELDS = ("prompt", "question")


class Answer(NamedTuple):
    """One row of an answers file."""

    question_id: str | None
    text: str
    prompt: str = ""
    """What the model was asked, where the file says it."""


def read_answers(path: str | Path, problems: Problems) -> list[Answer]:
    """Rows of an answers file in its order; those that cannot be read are noted and left out.

    Ids may repeat: LLaVA's TextVQA files name the image there. `match` knows which are duplicates.

    Raises:
        UserError: There is no such file, or no answer in it.
    """
    answers = []
    for row in read_rows(path, problems):
        text_field = _first(row, _TEXT_FIELDS)
        if isinstance(row.fields.get(text_field), list | dict) or not text_field:
            problems.add("row without an answer", row.where)
            continue
        question_id = row.text(_first(row, _ID_FIELDS)) or None
        answers.append(Answer(question_id, row.text(text_field), row.text(_first(row, _PROMPT_FIELDS))))
    if not answers:
        raise UserError(f"answers file `{path}` holds no answer: expected rows with one of {', '.join(_TEXT_FIELDS)}")
    return answers


def match(items: Sequence[Item], answers: Sequence[Answer], problems: Problems) -> dict[str, str]:
    """Which question each answer belongs to: by id, else by order.

    An id counts when it is an item's `question_id` or one of its `aliases`. Where no row has such an id, and there are
    as many rows as items, rows and items are paired in order, and a warning says so. An answer to an unknown question,
    a second answer to one question (the last counts, as in the official scripts) and a prompt that is not the item's
    are noted. Questions without an answer are not: `Task.score` notes them.

    Returns:
        Question id -> text, for the questions that have an answer.

    Raises:
        UserError: Neither ids nor numbers fit.
    """
    by_name = {alias: item for item in items for alias in item.aliases}
    by_name.update((item.question_id, item) for item in items)
    matches: Sequence[Item | None] = [_find(by_name, answer) for answer in answers]
    if not any(matches):
        matches = _by_order(items, answers, problems)
    texts: dict[str, str] = {}
    for answer, item in zip(answers, matches, strict=True):
        if item is None:
            problems.add("answer to an unknown question", answer.question_id)
            continue
        if item.question_id in texts:
            problems.add("duplicate answer", item.question_id)
        if item.question_id != answer.question_id and not _same_question(answer.prompt, item.text):
            problems.add("answer to another question", item.question_id)
        texts[item.question_id] = answer.text
    return texts


def texts_of(items: Sequence[Item], texts: Mapping[str, str], problems: Problems) -> list[str | None]:
    """Answers in the items' order for a scorer; None where there is none. Missing and empty ones are noted.

    Raises:
        UserError: An item has no gold label.
    """
    unlabelled = [item.question_id for item in items if item.gold is None]
    if unlabelled:
        raise UserError(
            f"{len(unlabelled)} of {len(items)} questions have no labels to score with (first: {unlabelled[0]}); "
            "give the label files, or write the file for the test server"
        )
    answers = [texts.get(item.question_id) for item in items]
    for item, text in zip(items, answers, strict=True):
        if text is None:
            problems.add("missing answer", item.question_id)
        elif not text.strip():
            problems.add("empty prediction", item.question_id)
    return answers


def question_key(image_id: str, prompt: str) -> str:
    """LLaVA's name of a TextVQA question, whose answers files give the image's id: that id and the question itself."""
    return f"{image_id} {_question(prompt)}"


def _find(by_name: Mapping[str, Item], answer: Answer) -> Item | None:
    if answer.question_id is None:
        return None
    return by_name.get(answer.question_id) or by_name.get(question_key(answer.question_id, answer.prompt))


def _by_order(items: Sequence[Item], answers: Sequence[Answer], problems: Problems) -> list[Item]:
    if len(items) != len(answers):
        raise UserError(
            f"the answers fit no question: their ids are like `{answers[0].question_id}`, the questions' like "
            f"`{items[0].question_id}`, and {len(answers)} rows cannot be matched in order with {len(items)} questions"
        )
    logger.warning("answers carry no question ids known here: %d rows are matched in order", len(answers))
    unknown = (answer.question_id for answer in answers if answer.question_id is not None)
    problems.add_all("unknown id, matched in order", unknown)
    return list(items)


def _same_question(prompt: str, other: str) -> bool:
    """Whether two prompts can be of one question: the one's question is in the other's, whatever each adds."""
    first, second = _question(prompt), _question(other)
    return not prompt or first in second or second in first


def _question(prompt: str) -> str:
    """The question in a prompt of LLaVA's: its first line, or what its prompts with OCR tokens have around it."""
    old_form = re.search(r"^OCR tokens: .*Question: (.*?) Short answer:", prompt, re.DOTALL)
    if old_form:
        return old_form[1].lower()
    lines = prompt.split("\n")
    return lines[len(lines) > 1 and lines[0].startswith("Reference OCR token:")].lower()


def _first(row: Row, names: Sequence[str]) -> str:
    return next((name for name in names if name in row.fields), "")
