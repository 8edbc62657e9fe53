"""A benchmark from its files to its score record. `--answers` needs no model, and nothing heavy is imported here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import UserError
from ..registry import nearest
from ..storage import save_json
from . import (
    record,
    tasks,  # noqa: F401  fills TASKS
)
from .answers import Answer, match, read_answers
from .problems import Problems
from .task import TASKS, Item, Score, Task

UPLOAD = "upload.json"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A benchmark that has been read: what is asked and how answers will be scored."""

    task: Task
    convention: str
    labels: tuple[Path, ...]
    all_items: list[Item]
    items: list[Item]
    """Those that are asked: all, or the first `limit`."""
    limit: int | None
    problems: Problems

    @property
    def is_labelled(self) -> bool:
        """Whether there is something to score with; a test split has no public labels."""
        return any(item.gold is not None for item in self.items)

    def score(self, texts: Mapping[str, str]) -> Score:
        """Score answers by question id.

        Raises:
            UserError: There are no labels, or a program that the scorer needs is missing.
        """
        return self.task.score(self.items, texts, self.convention, self.problems)


def task_class(name: str) -> type[Task]:
    """A benchmark by its name on the command line.

    Raises:
        UserError: There is none; names the nearest.
    """
    if name not in TASKS:
        raise UserError(f"unknown task `{name}`; {nearest(name, TASKS.names())}")
    return TASKS.get(name)


def read_bench(
    name: str,
    labels: Sequence[Path],
    convention: str | None = None,
    prompt: str | None = None,
    limit: int | None = None,
) -> Bench:
    """Read a benchmark's label files.

    Args:
        name: The task.
        labels: Its files.
        convention: How to score; none takes the task's first.
        prompt: In place of the task's own.
        limit: Only the first so many questions.

    Raises:
        UserError: Unknown task or convention, files that are not the task's, or a prompt that it cannot take.
    """
    task = task_class(name)()
    convention = convention or task.conventions[0]
    if convention not in task.conventions:
        raise UserError(f"task `{name}` has no convention `{convention}`; {nearest(convention, task.conventions)}")
    problems = Problems()
    items = task.read(labels, problems)
    if prompt is not None and prompt != task.prompt:
        items = _ask_otherwise(task, prompt, labels, items)
    return Bench(
        task=task,
        convention=convention,
        labels=tuple(labels),
        all_items=items,
        items=items[:limit],
        limit=limit,
        problems=problems,
    )


def _ask_otherwise(task: Task, prompt: str, labels: Sequence[Path], usual: Sequence[Item]) -> list[Item]:
    """The items with another prompt, which `task` has from now on."""
    task.prompt = prompt  # type: ignore[misc]  this one object's
    try:
        items = task.read(labels, Problems())
    except (KeyError, IndexError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"--prompt `{prompt}` does not fit {task.name}: it may have {{question}} in it") from error
    if any(item.text == before.text for item, before in zip(items, usual, strict=True)):
        raise UserError(
            f"--prompt has no effect: {', '.join(path.name for path in labels)} bring their own prompts, which are "
            "asked as they stand; give the official label files instead"
        )
    return items


def score_answers(bench: Bench, answers_file: Path, strict: bool = False, output: Path | None = None) -> dict[str, Any]:
    """Score an answers file.

    Args:
        bench: What was asked.
        answers_file: In any of the forms that `read_answers` takes.
        strict: As for `conclude`.
        output: As for `conclude`.

    Returns:
        The score record.

    Raises:
        UserError: The files do not fit each other, or something is wrong and `strict`.
    """
    given = read_answers(answers_file, bench.problems)
    texts = match(bench.items, given, bench.problems)
    answers = {"file": answers_file.name, "sha256": record.sha256(answers_file), "n": len(given)}
    known = _asked_as_told(bench.items, given)
    return conclude(bench, texts, answers, strict=strict, output=output, prompt_known=known)


def conclude(
    bench: Bench,
    texts: Mapping[str, str],
    answers: Mapping[str, Any],
    *,
    strict: bool,
    output: Path | None,
    prompt_known: bool = True,
    made_by: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Score answers and write down what is known of them.

    Args:
        bench: What was asked.
        texts: Question id -> answer.
        answers: What the record says of the file that they are in.
        strict: Refuse whatever is wrong instead of counting it.
        output: Folder for the record and, where a test server takes one, the upload file; none writes nothing. Without
            public labels only a folder makes sense.
        prompt_known: As in `record.score_record`.
        made_by: As there.

    Returns:
        The score record.

    Raises:
        UserError: There is nothing to score with and nowhere to write, or something is wrong and `strict`.
    """
    score = bench.score(texts) if bench.is_labelled or output is None else None
    if strict:
        bench.problems.refuse()
    upload = None if output is None else bench.task.upload(bench.items, texts)
    if output is not None and upload is not None:
        save_json(output / UPLOAD, upload)
        answers = {**answers, "upload": UPLOAD}
    result = record.score_record(bench, score, answers=answers, prompt_known=prompt_known, made_by=made_by)
    if output is not None:
        record.save(output, result)
    return result


def _asked_as_told(items: Sequence[Item], answers: Sequence[Answer]) -> bool:
    """Whether an answers file says that its questions were asked in exactly the task's words."""
    asked = {item.text for item in items}
    return all(answer.prompt in asked for answer in answers)
