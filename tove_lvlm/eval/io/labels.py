"""What the tasks' readers of label files share: rows of official files, annotators."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .items import Item
from .problems import Problems
from .rows import Row, objects, read_json

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
