"""From answers to the score record. `--answers` needs no model, and nothing heavy is imported here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..storage import save_json
from . import record
from .answers import Answer, match, read_answers
from .benchmark import Benchmark
from .task import Item

UPLOAD = "upload.json"


def score_answers(
    benchmark: Benchmark, answers_file: Path, strict: bool = False, output: Path | None = None
) -> dict[str, Any]:
    """Score an answers file.

    Args:
        bench: What was asked.
        answers_file: In any of the forms that `read_answers` takes.
        strict: As for `write_score`.
        output: As for `write_score`.

    Returns:
        The score record.

    Raises:
        UserError: The files do not fit each other, or something is wrong and `strict`.
    """
    file_answers = read_answers(answers_file, benchmark.problems)
    texts = match(benchmark.items, file_answers, benchmark.problems)
    answers = {"file": answers_file.name, "sha256": record.sha256(answers_file), "n": len(file_answers)}
    same_prompt = _same_prompts(benchmark.items, file_answers)
    return write_score(benchmark, texts, answers, strict=strict, output=output, prompt_is_known=same_prompt)


def write_score(
    benchmark: Benchmark,
    texts: Mapping[str, str],
    answers: Mapping[str, Any],
    *,
    strict: bool,
    output: Path | None,
    prompt_is_known: bool = True,
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
        prompt_is_known: As in `record.score_record`.
        made_by: As there.

    Returns:
        The score record.

    Raises:
        UserError: There is nothing to score with and nowhere to write, or something is wrong and `strict`.
    """
    score = benchmark.score(texts) if benchmark.is_labelled or output is None else None
    if strict:
        benchmark.problems.refuse()
    upload = None if output is None else benchmark.task.upload(benchmark.items, texts)
    if output is not None and upload is not None:
        save_json(output / UPLOAD, upload)
        answers = {**answers, "upload": UPLOAD}
    result = record.score_record(benchmark, score, answers=answers, prompt_is_known=prompt_is_known, made_by=made_by)
    if output is not None:
        record.save(output, result)
    return result


def _same_prompts(items: Sequence[Item], answers: Sequence[Answer]) -> bool:
    """Whether an answers file says that its questions were asked in exactly the task's words."""
    prompts = {item.text for item in items}
    return all(answer.prompt in prompts for answer in answers)
