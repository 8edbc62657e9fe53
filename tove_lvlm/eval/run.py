"""From answers to the score record. `--answers` needs no model, and nothing heavy is imported here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import provenance
from ..storage import refuse_inputs, save_json
from .benchmark import Benchmark
from .io import record
from .io.answers import Answer, match, read_answers
from .io.items import Item
from .metrics.score import Score

UPLOAD = "upload.json"


def score_answers(
    benchmark: Benchmark, answers_file: Path, strict: bool = False, output: Path | None = None
) -> dict[str, Any]:
    """Score an answers file.

    Args:
        benchmark: What was asked.
        answers_file: In any of the forms that `read_answers` takes.
        strict: As for `write_score`.
        output: As for `write_score`.

    Returns:
        The score record.

    Raises:
        UserError: The files do not fit each other, or something is wrong and `strict`.
    """
    if output is not None:
        refuse_inputs(output, [answers_file, *benchmark.labels])
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
        benchmark: What was asked.
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
    result = score_record(benchmark, score, answers=answers, prompt_is_known=prompt_is_known, made_by=made_by)
    if output is not None:
        record.save(output, result)
    return result


def score_record(
    benchmark: Benchmark,
    score: Score | None,
    *,
    answers: Mapping[str, Any],
    prompt_is_known: bool = True,
    made_by: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All that is known of a score.

    Args:
        benchmark: What was asked, with the problems found.
        score: None where there are no labels.
        answers: The answers file: `file`, `sha256`, `n`.
        prompt_is_known: Whether the questions are known to have been asked in the task's words.
        made_by: What a run knows of its model: `model`, `decoding`, `dtype`, `device`, `hardware`, `world_size`,
            `seconds` and so on; none when the answers came from elsewhere.
    """
    task = benchmark.task
    prompt = {"template": task.prompt, "sha256": record.text_sha256(task.prompt)} if prompt_is_known else None
    return {
        "format": record.FORMAT,
        "task": task.name,
        "form": task.form,
        "convention": benchmark.convention,
        "metrics": dict(score.metrics) if score else {},
        "groups": score.groups if score else {},
        "num_items": len(benchmark.items),
        "limit": benchmark.limit,
        "notes": list(score.notes) if score else ["no public labels: not scored"],
        "problems": benchmark.problems.as_dict(),
        "prompt": prompt,
        "ocr": bool(getattr(task, "ocr", False)),
        "questions_sha256": record.questions_sha256(benchmark.items),
        "labels": {path.name: record.sha256(path) for path in benchmark.labels},
        "answers": dict(answers),
        **(made_by or {"model": None, "hardware": provenance.hardware()}),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }


def _same_prompts(items: Sequence[Item], answers: Sequence[Answer]) -> bool:
    """Whether an answers file says that its questions were asked in exactly the task's words."""
    prompts = {item.text for item in items}
    return all(answer.prompt in prompts for answer in answers)
