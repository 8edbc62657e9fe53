"""The command `tove eval`."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..config import UserError
from .app import JsonFlag, app, choose_device, console

_DATA, _ASK, _OTHER = "Data", "Asking a model", "Instead of a task"


@app.command(name="eval")
def evaluate(
    task: Annotated[str | None, typer.Argument(help="A benchmark (see --list), or `compare`.")] = None,
    further: Annotated[list[str] | None, typer.Argument(help="Of compare: two records. Else more --labels.")] = None,
    answers: Annotated[Path | None, typer.Option(help="Score this file: no model is asked.")] = None,
    model: Annotated[Path | None, typer.Option(help="Ask this trained model: a merged one or an adapter.")] = None,
    convention: Annotated[str | None, typer.Option(help="How answers are scored; else the task's first.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for answers and record.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse broken data instead of counting it.")] = False,
    as_json: JsonFlag = False,
    data: Annotated[
        Path, typer.Option(help="Root with `playground`, or an official site's files.", rich_help_panel=_DATA)
    ] = Path("."),
    labels: Annotated[list[Path] | None, typer.Option(help="Label files: a b c.", rich_help_panel=_DATA)] = None,
    images: Annotated[Path | None, typer.Option(help="Image folder.", rich_help_panel=_DATA)] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many questions.", min=1, rich_help_panel=_DATA)] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Instead of the task's: text with {question}.", rich_help_panel=_ASK)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Questions at a time.", min=1, rich_help_panel=_ASK)] = 16,
    max_new_tokens: Annotated[int | None, typer.Option(help="Else the task's.", min=1, rich_help_panel=_ASK)] = None,
    temperature: Annotated[float, typer.Option(help="0: greedy.", min=0.0, rich_help_panel=_ASK)] = 0.0,
    top_p: Annotated[float, typer.Option(help="With a temperature.", rich_help_panel=_ASK)] = 1.0,
    num_beams: Annotated[int, typer.Option(min=1, rich_help_panel=_ASK)] = 1,
    seed: Annotated[int, typer.Option(help="With a temperature.", rich_help_panel=_ASK)] = 0,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; else the checkpoint's.", rich_help_panel=_ASK)
    ] = None,
    device: Annotated[str | None, typer.Option(help="Else CUDA when there is one.", rich_help_panel=_ASK)] = None,
    list_tasks: Annotated[
        bool, typer.Option("--list", help="What is found of each benchmark below --data.", rich_help_panel=_OTHER)
    ] = False,
    miniature: Annotated[
        Path | None, typer.Option(help="Write the miniature world's benchmarks to here.", rich_help_panel=_OTHER)
    ] = None,
    scenes: Annotated[int, typer.Option(help="Of --miniature.", min=1, rich_help_panel=_OTHER)] = 300,
    force: Annotated[bool, typer.Option("--force", help="Of compare.", rich_help_panel=_OTHER)] = False,
) -> None:
    """Score a benchmark as its official script does: a model, or answers that exist.

    tove eval pope --model outputs/tove --data /data

    tove eval pope --answers answers.jsonl --labels coco_pope_*.json

    tove eval compare RECORD RECORD

    Several ranks: torchrun --nproc-per-node N -m tove_lvlm.cli eval ... A stopped run goes on with the same command.
    """
    if list_tasks:
        return _list(data, as_json)
    if miniature is not None:
        return _write_miniature(miniature, scenes, seed)
    if task == "compare":
        return _compare(further or [], force, as_json)
    if task is None:
        raise UserError("name a task (`tove eval --list` shows them), or give --list, --miniature DIR or `compare A B`")
    if further and not labels:
        raise UserError(f"unexpected `{' '.join(further)}`; label files are given as --labels a b c")
    if (answers is None) == (model is None):
        raise UserError("give either --model FOLDER or --answers FILE")
    label_files = [*(labels or []), *map(Path, further or [])]
    if answers is not None:
        if limit is not None:
            raise UserError("--limit goes with --model; an answers file is scored as a whole")
        result = _score(task, answers, label_files, data, convention, prompt, output, strict)
    else:
        decoding = {"temperature": temperature, "top_p": top_p, "num_beams": num_beams, "seed": seed}
        asked = {"batch_size": batch_size, "dtype": dtype, "strict": strict, "output": output, "model": model}
        read = {"convention": convention, "prompt": prompt, "limit": limit}
        with _quiet_ranks(), contextlib.redirect_stdout(sys.stderr):  # stdout may be somebody's JSON
            result = _ask(task, label_files, images, data, read, asked, decoding, max_new_tokens, device)
    _show(result, as_json)


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


def _write_miniature(folder: Path, scenes: int, seed: int) -> None:
    from ..world.benchmarks import ASKED, write_benchmarks

    try:
        write_benchmarks(folder, scenes, seed=seed)
    except (FileExistsError, ValueError) as error:
        raise UserError(str(error)) from error
    console.print(f"{', '.join(ASKED)}: {scenes} pictures in {folder}", markup=False, soft_wrap=True, highlight=False)
    console.print(f"now: tove eval pope --model outputs/miniature/tove --data {folder}", markup=False, soft_wrap=True)


def _score(
    task: str,
    answers: Path,
    labels: list[Path],
    data: Path,
    convention: str | None,
    prompt: str | None,
    output: Path | None,
    strict: bool,
) -> dict:
    from ..eval import record
    from ..eval.find import find
    from ..eval.run import read_bench, score_answers, task_class

    labels = labels or list(find(task_class(task), data, images=False).labels)
    result = score_answers(read_bench(task, labels, convention, prompt), answers, strict)
    if output is not None:
        record.save(output, result)
    return result


def _ask(
    task: str,
    labels: list[Path],
    images: Path | None,
    data: Path,
    read: dict,
    asked: dict,
    decoding: dict,
    max_new_tokens: int | None,
    device: str | None,
) -> dict | None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ..eval.find import asked_prompt, find
    from ..eval.run import read_bench, task_class

    chosen = task_class(task)
    if not labels or images is None:
        place = find(chosen, data)
        labels, images = labels or list(place.labels), images or place.images
        read["prompt"] = read["prompt"] or asked_prompt(task, data)
    bench = read_bench(task, labels, **read)

    from .. import dist
    from ..eval.ask import Settings, evaluate_model
    from ..lvlm.batching import Decoding

    asked["output"] = asked["output"] or Path("outputs/eval") / asked["model"].resolve().name / task
    settings = Settings(
        images=images,
        decoding=Decoding(max_new_tokens=max_new_tokens or chosen.max_new_tokens, **decoding),
        device=choose_device(device),
        **asked,
    )
    dist.setup_process_group("gloo")  # ranks only tell each other what is to be asked
    columns = (TextColumn(f"{task}: answers"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not dist.is_main()) as bar:
        row = bar.add_task("answers", total=None)
        return evaluate_model(bench, settings, lambda done, total: bar.update(row, completed=done, total=total))


def _show(result: dict | None, as_json: bool) -> None:
    from .eval_tables import print_record

    if result is not None:
        print(json.dumps(result)) if as_json else print_record(result)


@contextlib.contextmanager
def _quiet_ranks():
    """A mistake is told once, by rank 0."""
    import os

    try:
        yield
    except UserError:
        if os.environ.get("RANK", "0") != "0":
            raise SystemExit(2) from None
        raise
