"""The command `tove eval`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..config import UserError
from .app import JsonFlag, app

_FROM_ANSWERS = "Score answers that exist"
_DATA = "Data"


@app.command(name="eval")
def evaluate(
    task: Annotated[str | None, typer.Argument(help="A benchmark (see --list), or `compare`.")] = None,
    further: Annotated[list[str] | None, typer.Argument(help="Of compare: two records. Else more --labels.")] = None,
    answers: Annotated[
        Path | None, typer.Option(help="Answers that exist: no model is asked.", rich_help_panel=_FROM_ANSWERS)
    ] = None,
    labels: Annotated[
        list[Path] | None, typer.Option(help="Label files: --labels a b c.", rich_help_panel=_DATA)
    ] = None,
    data: Annotated[
        Path, typer.Option(help="Root with `playground`, or an official site's files.", rich_help_panel=_DATA)
    ] = Path("."),
    convention: Annotated[str | None, typer.Option(help="How answers are scored; else the task's first.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the record.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse broken data instead of counting it.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Of compare: compare all the same.")] = False,
    list_tasks: Annotated[bool, typer.Option("--list", help="What is found of each benchmark below --data.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Score a benchmark as its official script does.

    tove eval pope --answers answers.jsonl --labels coco_pope_*.json

    tove eval compare RECORD RECORD
    """
    if list_tasks:
        _list(data, as_json)
    elif task == "compare":
        _compare(further or [], force, as_json)
    elif task is None:
        raise UserError("name a task (`tove eval --list` shows them), or give --list or `compare A B`")
    else:
        given = [*(labels or []), *map(Path, further or [])] if labels else []
        if further and not labels:
            raise UserError(f"unexpected `{' '.join(further)}`; label files are given as --labels a b c")
        _score(task, answers, given, data, convention, output, strict, as_json)


def _list(data: Path, as_json: bool) -> None:
    from ..eval.find import survey
    from .eval_tables import print_survey

    rows = list(survey(data))
    print(json.dumps(rows)) if as_json else print_survey(rows)


def _compare(paths: list[str], force: bool, as_json: bool) -> None:
    from ..eval import record
    from ..eval.compare import compare
    from .eval_tables import print_comparison

    if len(paths) != 2:
        raise UserError(f"`tove eval compare` takes two records, got {len(paths)}")
    result = compare(*(record.load(path) for path in paths), force=force)
    print(json.dumps(result)) if as_json else print_comparison(paths, result)


def _score(
    task: str,
    answers: Path | None,
    labels: list[Path],
    data: Path,
    convention: str | None,
    output: Path | None,
    strict: bool,
    as_json: bool,
) -> None:
    from ..eval import record
    from ..eval.find import find
    from ..eval.run import read_bench, score_answers, task_class
    from .eval_tables import print_record

    if answers is None:
        raise UserError("give --answers FILE")
    labels = labels or list(find(task_class(task), data, images=False).labels)
    result = score_answers(read_bench(task, labels, convention), answers, strict)
    if output:
        record.save(output, result)
    print(json.dumps(result)) if as_json else print_record(result)
