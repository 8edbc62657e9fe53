"""From answers to the score record. `--answers` needs no model, and nothing heavy is imported here. Our choice."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..storage import save_json
from . import record
from .answers import Answer, match, read_answers
from .bench import Bench
from .task import Item

UPLOAD = "upload.json"


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
