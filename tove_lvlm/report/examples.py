"""Answers of an evaluation, right ones and wrong ones, with the picture that each question is about.

Labels and pictures are found as `tove eval --data` finds them; nothing is asked of a model.
"""

from dataclasses import dataclass
from pathlib import Path

from ..config import UserError
from ..data.errors import DataError
from ..eval.benchmark import read_benchmark, task_class
from ..eval.io import record
from ..eval.io.answers import match, read_answers
from ..eval.io.find import find
from ..eval.io.problems import Problems
from ..eval.io.store import ANSWERS
from ..eval.questions import ScoredAnswer, scored_answers
from ..viz.embedding import file_address
from .findings import Evaluation

SIDE = 224
"""Pixels of the longer side of an embedded picture."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One answered question, ready to show."""

    question: str
    expected: str
    answer: str
    is_right: bool
    picture: str
    """The picture as a `data:` address; empty where there is none to show."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Right and wrong answers of one evaluation, or why there are none."""

    shown: list[Example]
    note: str = ""
    """A sentence; empty where there is nothing to say."""


def find_examples(evaluation: Evaluation, data: Path | None, count: int) -> Examples:
    """So many right and so many wrong answers; which ones depends on the questions' ids alone.

    Args:
        evaluation: Its folder holds the answers.
        data: Root folder of labels and pictures, as `tove eval` takes; None where there is none.
        count: Of each kind.

    Raises:
        UserError: The data folder is absent, or its files are broken.
    """
    answers_file = evaluation.folder / ANSWERS
    if not answers_file.is_file():
        return Examples(shown=[], note=f"There is no {ANSWERS} beside the record.")
    if data is None:
        return Examples(shown=[], note="Give --data, as to `tove eval`, to see questions with their pictures.")
    task, convention = evaluation.record["task"], str(evaluation.record.get("convention"))
    try:
        location = find(task_class(task), data, images=False)
    except UserError as error:
        if not data.is_dir():
            raise
        return Examples(shown=[], note=f"{error}.")
    if not _are_the_scored(location.labels, evaluation):
        return Examples(shown=[], note=f"The label files in {data} are not those that this score was made with.")
    benchmark = read_benchmark(task, location.labels, convention)
    rows = read_answers(answers_file, Problems())
    texts, prompts = match(benchmark.items, rows, Problems()), {row.question_id: row.prompt for row in rows}
    kinds: dict[bool, list[Example]] = {True: [], False: []}
    scored_any = False
    for one in scored_answers(benchmark, texts):
        scored_any = True
        if len(kinds[one.is_right]) < count:
            names = (one.item.llava_id, one.item.question_id, *one.item.aliases)
            prompt = next((prompts[name] for name in names if prompts.get(name)), one.item.text)
            kinds[one.is_right].append(_example(one, prompt, location.images))
        if all(len(found) == count for found in kinds.values()):
            break
    note = "" if scored_any else f"{task} is not scored question by question."
    return Examples(shown=[*kinds[True], *kinds[False]], note=note)


def _are_the_scored(labels: tuple[Path, ...], evaluation: Evaluation) -> bool:
    scored = evaluation.record.get("labels")
    return isinstance(scored, dict) and {record.sha256(path) for path in labels} == set(scored.values())


def _example(one: ScoredAnswer, prompt: str, images: Path) -> Example:
    return Example(
        question=prompt,
        expected=one.expected,
        answer=one.text,
        is_right=one.is_right,
        picture=_embedded(images, one.item.image) if one.item.image else "",
    )


def _embedded(folder: Path, name: str) -> str:
    """A picture, reduced, as an address; empty where it cannot be read."""
    try:
        return file_address(folder, name, SIDE, allow_symlinks=True)
    except DataError:
        return ""
