"""easy-VQA: questions about pictures of one coloured shape. Labels: `test/questions.json` of the package easy-vqa.

The package's own scorer is the accuracy of a classifier over its 13 answers: exact match, here on the text; with
`--candidates answers.txt` a model is held to these answers too.

See docs/evaluation.md, "Questions of your own".
"""

import json
from collections.abc import Sequence
from pathlib import Path

from ...config import UserError
from ..io.find import Layout
from ..io.items import Item, checked
from ..io.problems import Problems
from .base import SHORT_ANSWER, TASKS
from .questions import Gold, Questions

_YES_NO = ("yes", "no")


@TASKS.register("easyvqa")
class EasyVqa(Questions):
    """Shape, colour and presence; scored overall and, our choice, on `yes/no` and `open` questions."""

    name = "easyvqa"
    about = "questions about one coloured shape; exact match"
    source = "the PyPI package easy-vqa (its wheel's easy_vqa/data)"
    layouts = (
        Layout(
            labels=("playground/data/eval/easyvqa/test/questions.json",),
            images="playground/data/eval/easyvqa/test/images",
        ),
        Layout(labels=("test/questions.json",), images="test/images"),
    )
    prompt = SHORT_ANSWER

    def read(self, labels: Sequence[Path], problems: Problems) -> list[Item]:
        """Triples of question, answer and the picture's number; an item is called by the file's folder and its place.

        Raises:
            UserError: As `Task.read`.
        """
        items = []
        for path in map(Path, labels):
            for number, row in enumerate(_read(path)):
                if (triple := _triple(row)) is None:
                    problems.add("row that is no question, answer and number of a picture", f"{path.name}:{number}")
                    continue
                question, answer, picture = triple
                items.append(
                    Item(
                        question_id=f"{path.parent.name}/{number}",
                        image=f"{picture}.png",
                        text=self.prompt.format(question=question),
                        gold=Gold(answer),
                        group="yes/no" if answer in _YES_NO else "open",
                    )
                )
        return checked(items, labels, problems, "triples of question, answer and the picture's number")


def _triple(row: object) -> tuple[str, str, int] | None:
    if isinstance(row, list) and list(map(type, row)) == [str, str, int]:
        return row[0], row[1], row[2]
    return None


def _read(path: Path) -> list[object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"file `{path}` does not exist") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"file `{path}` is not readable as JSON, perhaps it is truncated: {error}") from error
    if not isinstance(content, list):
        raise UserError(f"file `{path}` is not of easy-VQA: expected a list of questions in it")
    return content
