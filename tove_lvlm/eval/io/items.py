"""Items: what a benchmark asks, one question about one image each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config import UserError
from .problems import Problems
from .rows import Row


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question about one image."""

    question_id: str
    """As text: official files mix numbers and strings."""
    image: str
    """File name within the task's image folder; empty where the question has no image."""
    text: str
    """What the model is asked: the question with the task's prompt around it."""
    gold: Any = None
    """What this task's scorer compares with; None where the labels are not public."""
    group: str = ""
    """Part of the benchmark that is scored by itself (POPE's split, NoCaps' domain); empty when it has none."""
    aliases: tuple[str, ...] = ()
    """Other ids under which answers files name the question."""
    llava_id: str = ""
    """LLaVA's id, where it has one of its own: under this an answer is written. One of the aliases."""
    choices: tuple[str, ...] = ()
    """Answers whose likelihoods are compared, in the form `likelihood`."""


def llava_items(rows: Iterable[Row], problems: Problems) -> list[Item]:
    """Items of a LLaVA question file (`question_id, image, text`): asked as they stand, without labels."""
    return [
        Item(
            question_id=row.text("question_id"),
            image=row.text("image"),
            text=row.text("text"),
            group=row.text("category"),
        )
        for row in rows
        if row.has(("question_id", "image", "text"), problems)
    ]


def checked(items: Iterable[Item], labels: Sequence[Path], problems: Problems, expected: str) -> list[Item]:
    """Items with one id each: a second one of the same id is noted and left out.

    Raises:
        UserError: There are none, so the files are not of this benchmark.
    """
    unique: dict[str, Item] = {}
    for item in items:
        if item.question_id in unique:
            problems.add("duplicate question id", item.question_id)
        else:
            unique[item.question_id] = item
    if not unique:
        first_problem = f"; {problems.lines()[0]}" if problems else ""
        raise UserError(f"no questions in {', '.join(map(str, labels))}: expected {expected}{first_problem}")
    return list(unique.values())


def upload_id(question_id: str) -> int | str:
    """The id as the test servers take it: a number where it is one."""
    return int(question_id) if question_id.isdecimal() else question_id
