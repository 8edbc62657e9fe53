"""The score record: a score with all that says how it was made, as JSON.

See docs/evaluation.md, "Records".
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import provenance
from ..config import UserError
from ..storage import load_json, save_json
from .benchmark import Benchmark
from .task import Item, Score

FORMAT = 1
FILE_NAME = "record.json"


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
        bench: What was asked, with the problems found.
        score: None where there are no labels.
        answers: The answers file: `file`, `sha256`, `n`.
        prompt_is_known: Whether the questions are known to have been asked in the task's words.
        made_by: What a run knows of its model: `model`, `decoding`, `dtype`, `device`, `hardware`, `world_size`,
            `seconds` and so on; none when the answers came from elsewhere.
    """
    task = benchmark.task
    prompt = {"template": task.prompt, "sha256": text_sha256(task.prompt)} if prompt_is_known else None
    return {
        "format": FORMAT,
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
        "questions_sha256": questions_sha256(benchmark.items),
        "labels": {path.name: sha256(path) for path in benchmark.labels},
        "answers": dict(answers),
        **(made_by or {"model": None, "hardware": provenance.hardware()}),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }


def save(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write `record.json` into a folder."""
    save_json(folder / FILE_NAME, dict(record))
    return folder / FILE_NAME


def load(path: str | Path) -> dict[str, Any]:
    """Read a record.

    Args:
        path: The file, or the folder of a run.

    Raises:
        UserError: There is none.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    record = load_json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT or "metrics" not in record:
        raise UserError(f"`{path}` is no score record of `tove eval` (format {FORMAT})")
    return record


def sha256(path: str | Path) -> str:
    """Of a file, as `sha256sum` prints it."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def text_sha256(text: str) -> str:
    """Of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def questions_sha256(items: list[Item]) -> str:
    """Of what is asked: ids, images and full prompts, whatever their order."""
    return text_sha256("\x1e".join(sorted("\x1f".join((i.question_id, i.image, i.text, *i.choices)) for i in items)))
