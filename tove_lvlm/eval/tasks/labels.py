"""What the tasks' readers of label files share: LLaVA's question files, annotators, checks."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...config import UserError
from ..problems import Problems
from ..rows import Row, objects, read_json
from ..task import Item

SHORT_ANSWER = "{question}\nAnswer the question using a single word or phrase."
"""LLaVA's prompt for short answers."""

_NUM_ANNOTATORS = 10


def load(path: Path, problems: Problems) -> dict[str, Any] | list[Row]:
    """Content of a label file: an official file that is one object, or rows; a single row is a row.

    Raises:
        UserError: As `read_json`.
    """
    content = read_json(path, problems)
    if isinstance(content, dict) and "image" in content:
        return [Row(path.name, 1, content)]
    return content


def rows_under(content: dict[str, Any], key: str, path: Path, problems: Problems) -> list[Row]:
    """The rows that an official file keeps under `key`."""
    return objects(f"{path.name} {key}", content[key], problems)


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


def annotated(row: Row, problems: Problems) -> bool:
    """Whether somebody answered the question; noted if not."""
    answers = row.fields.get("answers")
    if isinstance(answers, list) and answers:
        return True
    problems.add("question without annotators", row.where)
    return False


def annotators(row: Row, problems: Problems) -> tuple[str, ...]:
    """The people's answers in an annotated row, as text or as objects with `answer`; fewer than ten are noted."""
    answers = [each.get("answer", "") if isinstance(each, dict) else each for each in row.fields["answers"]]
    if len(answers) < _NUM_ANNOTATORS:
        problems.add("question with fewer than ten annotators", row.where)
    return tuple(map(str, answers))


def note_undecided(
    items: Sequence[Item], texts: Sequence[str | None], predictions: Sequence[bool | None], problems: Problems
) -> None:
    """Note the answers that were read as neither yes nor no, though something was answered."""
    for item, text, answer in zip(items, texts, predictions, strict=True):
        if answer is None and text and text.strip():
            problems.add("answer neither yes nor no", item.question_id)


def upload_id(question_id: str) -> int | str:
    """The id as the test servers take it: a number where it is one."""
    return int(question_id) if question_id.isdecimal() else question_id
