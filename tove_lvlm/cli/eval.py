"""The command `tove eval`."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import UserError
from .app import JsonFlag, app, choose_device, console, counted, heavy_imports

# Panels of --help.
_DATA: dict[str, Any] = {"rich_help_panel": "Data"}
_ASKING: dict[str, Any] = {"rich_help_panel": "Asking a model"}
_OTHER: dict[str, Any] = {"rich_help_panel": "Instead of a task"}

Data = Annotated[Path, typer.Option(help="Root with `playground`, or an official site's files.", **_DATA)]
Labels = Annotated[list[Path] | None, typer.Option(help="Label files: a b c.", **_DATA)]
Images = Annotated[Path | None, typer.Option(help="Image folder.", **_DATA)]
Limit = Annotated[int | None, typer.Option(help="Only so many questions.", min=1, **_DATA)]
Prompt = Annotated[str | None, typer.Option(help="Instead of the task's: text with {question}.", **_ASKING)]
BatchSize = Annotated[int, typer.Option(help="Questions at a time.", min=1, **_ASKING)]
KeepGib = Annotated[float | None, typer.Option(help="GiB of pictures kept to be asked again.", min=0.0, **_ASKING)]
MaxNewTokens = Annotated[int | None, typer.Option(help="Else the task's.", min=1, **_ASKING)]
Temperature = Annotated[float, typer.Option(help="0: greedy.", min=0.0, **_ASKING)]
TopP = Annotated[float, typer.Option(help="With a temperature.", **_ASKING)]
NumBeams = Annotated[int | None, typer.Option(help="Beam search; else the task's.", min=1, **_ASKING)]
MinNewTokens = Annotated[int | None, typer.Option(help="Else the task's.", min=0, **_ASKING)]
LengthPenalty = Annotated[float, typer.Option(help="With beams.", **_ASKING)]
Candidates = Annotated[Path | None, typer.Option(help="Answer out of this list: JSON, or a text a line.", **_ASKING)]
TopK = Annotated[int, typer.Option(help="Candidates that are weighed as a whole.", min=1, **_ASKING)]
Seed = Annotated[int, typer.Option(help="With a temperature, or of --miniature.", min=0, **_ASKING)]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; else the checkpoint's.", **_ASKING)]
Device = Annotated[str | None, typer.Option(help="Else CUDA when there is one.", **_ASKING)]
ListTasks = Annotated[bool, typer.Option("--list", help="What is found of each benchmark below --data.", **_OTHER)]
Miniature = Annotated[Path | None, typer.Option(help="Write the miniature world's benchmarks to here.", **_OTHER)]
Scenes = Annotated[int, typer.Option(help="Of --miniature.", min=1, **_OTHER)]
Force = Annotated[bool, typer.Option("--force", help="Of compare: compare all the same.", **_OTHER)]


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
    data: Data = Path("."),
    labels: Labels = None,
    images: Images = None,
    limit: Limit = None,
    prompt: Prompt = None,
    batch_size: BatchSize = 16,
    keep_gib: KeepGib = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    num_beams: NumBeams = None,
    min_new_tokens: MinNewTokens = None,
    length_penalty: LengthPenalty = 1.0,
    candidates: Candidates = None,
    top_k: TopK = 128,
    seed: Seed = 0,
    dtype: Dtype = None,
    device: Device = None,
    list_tasks: ListTasks = False,
    miniature: Miniature = None,
    scenes: Scenes = 300,
    force: Force = False,
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
    task = _check(task, answers, model, bool(further and not labels), {"--limit": limit, "--candidates": candidates})
    files = [*(labels or []), *map(Path, further or [])]
    if answers is not None:
        return _show(_score(task, answers, files, data, convention, prompt, output, strict), as_json)
    decoding = {"temperature": temperature, "top_p": top_p, "length_penalty": length_penalty, "seed": seed}
    given = {"max_new_tokens": max_new_tokens, "num_beams": num_beams, "min_new_tokens": min_new_tokens}
    decoding |= {name: value for name, value in given.items() if value is not None}
    ranking = None if candidates is None else {"path": candidates, "top_k": top_k}
    settings = {"batch_size": batch_size, "dtype": dtype, "strict": strict, "output": output, "model": model}
    settings |= {} if keep_gib is None else {"keep_bytes": int(keep_gib * 2**30)}
    task_options = {"convention": convention, "prompt": prompt, "limit": limit}
    with _quiet_ranks(), contextlib.redirect_stdout(sys.stderr):  # stdout may be somebody's JSON
        result = _ask(task, files, images, data, task_options, settings, decoding, ranking, device)
    return _show(result, as_json)


def _check(
    task: str | None, answers: Path | None, model: Path | None, stray: bool, of_asking: dict[str, object]
) -> str:
    """The task, after a look at what goes with what: one of `answers` and `model` is given."""
    if task is None:
        raise UserError("name a task (`tove eval --list` shows them), or give --list, --miniature DIR or `compare A B`")
    if stray:
        raise UserError("one task at a time; label files are given as --labels a b c")
    from ..eval.benchmark import task_class

    task_class(task)
    if (answers is None) == (model is None):
        raise UserError("give either --model FOLDER or --answers FILE")
    if answers is not None:
        for option, value in of_asking.items():
            if value is not None:
                raise UserError(f"{option} goes with --model; an answers file is scored as a whole")
    return task


def _list(data: Path, as_json: bool) -> None:
    from ..eval.benchmark import survey
    from .eval_tables import print_survey

    rows = list(survey(data))
    print(json.dumps(rows)) if as_json else print_survey(rows)


def _compare(paths: list[str], force: bool, as_json: bool) -> None:
    from ..eval.compare import compare
    from ..eval.io import record
    from .eval_tables import print_comparison

    if len(paths) != 2:
        raise UserError(f"`tove eval compare` takes two records, got {len(paths)}")
    first, second = (record.load(path) for path in paths)
    result = compare(first, second, force=force)
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
    from ..eval.benchmark import read_benchmark, task_class
    from ..eval.io.find import asked_prompt, find
    from ..eval.run import score_answers

    if not labels:
        labels = list(find(task_class(task), data, images=False).labels)
        prompt = prompt or asked_prompt(task, data)
    return score_answers(read_benchmark(task, labels, convention, prompt), answers, strict, output)


def _ask(
    task: str,
    labels: list[Path],
    images: Path | None,
    data: Path,
    task_options: dict,
    options: dict,
    decoding: dict,
    ranking: dict | None,
    device: str | None,
) -> dict | None:
    with heavy_imports():
        from ..checkpoints import detect
        from ..eval.benchmark import read_benchmark, task_class
        from ..eval.io.find import asked_prompt, find

    chosen, of_data = task_class(task), None
    if not labels or images is None:
        location = find(chosen, data)
        labels, images = labels or list(location.labels), images or location.images
        of_data = asked_prompt(task, data)
    is_bare = detect(options["model"]).is_bare
    given = (task_options["prompt"], chosen.bare_prompt if is_bare else None, of_data)
    task_options["prompt"] = next((prompt for prompt in given if prompt is not None), None)
    benchmark = read_benchmark(task, labels, **task_options)

    with heavy_imports():
        from .. import dist
        from ..eval.ask import EvalConfig, evaluate_model
        from ..inference.batching import DecodingConfig
        from ..inference.ranking import RankingConfig

    usual = dict(chosen.bare_decoding) if is_bare and not decoding["temperature"] else {}
    if decoding.get("max_new_tokens", 1 << 31) < usual.get("min_new_tokens", 0):
        del usual["min_new_tokens"]  # an answer is as short as was asked for
    options["output"] = options["output"] or Path("outputs/eval") / options["model"].resolve().name / task
    settings = EvalConfig(
        images=images,
        decoding=DecodingConfig(**{"max_new_tokens": chosen.max_new_tokens} | usual | decoding),
        ranking=None if ranking is None else RankingConfig.from_file(**ranking),
        device=choose_device(device),
        **options,
    )
    dist.setup_process_group("gloo")  # ranks only tell each other what is to be asked
    with counted(f"{task}: answers", shown=dist.is_main()) as update:
        return evaluate_model(benchmark, settings, update)


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
