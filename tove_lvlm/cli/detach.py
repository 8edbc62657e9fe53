"""Commands about which experts a trained model runs: `tove detach`, `tove attach`."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ..config import UserError
from ..streams import quiet_transformers
from .app import JsonFlag, app, console

if TYPE_CHECKING:
    from rich.progress import Progress

Checkpoint = Annotated[Path, typer.Argument(help="A tower, a merged model, an adapter or stage 1's folder.")]
Output = Annotated[Path, typer.Option(help="New folder; written whole or not at all.")]


@app.command()
def detach(
    checkpoint: Checkpoint,
    output: Output,
    experts: Annotated[str | None, typer.Option(help="These go: a,b")] = None,
    keep: Annotated[int | None, typer.Option(help="This many stay.")] = None,
    min_gain: Annotated[
        float | None, typer.Option(help="Those go that lower the loss by less, in nats per answer token.")
    ] = None,
    budget_ms: Annotated[float | None, typer.Option(help="The tower's milliseconds per image.")] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="As many go as the score allows: points lost at most (2 = 2 %).")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="What to measure on: LLaVA JSON, or questions as JSON lines.")
    ] = None,
    image_folder: Annotated[Path | None, typer.Option(help="Folder of the images in --data.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many samples.", min=1)] = None,
    batch_size: Annotated[int, typer.Option(help="Images that run together.", min=1)] = 32,
    forget: Annotated[
        bool, typer.Option("--forget", help="What was trained for them goes too: no `tove attach` brings them back.")
    ] = False,
    renormalise: Annotated[
        bool, typer.Option("--renormalise", help="The others share their part of the gate, also with --data.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Take experts out of a trained model, without retraining: neither held, loaded nor run any more.

    Say which in exactly one way. Every way but --experts goes by leave-one-out on --data, measured anew after each
    removal. With --data the mean of what an expert added to a token stays in its place. The report
    (before and after, and every step) is printed and written to detach.json.
    """
    from ..surgery.choose import BUDGET_MS, KEEP, MAX_DROP, MIN_GAIN, Rule

    limits = {KEEP: keep, MIN_GAIN: min_gain, BUDGET_MS: budget_ms, MAX_DROP: max_drop}
    selected = {name: value for name, value in limits.items() if value is not None}
    ways = [*(["--experts"] if experts is not None else []), *(f"--{name.replace('_', '-')}" for name in selected)]
    if len(ways) != 1:
        every = "--experts, --keep, --min-gain, --budget-ms, --max-drop"
        raise UserError(f"give exactly one of {every}; got {', '.join(ways) or 'none'}")
    names = _names(experts) if experts is not None else []
    rule = Rule(name=next(iter(selected)), limit=next(iter(selected.values()))) if selected else None
    if data is None and rule is not None:
        raise UserError(f"{ways[0]} needs --data FILE (and --image-folder DIR) to measure the experts on")
    if data is None and (image_folder is not None or limit is not None):
        raise UserError("--image-folder and --limit belong to --data, which is not given")

    from rich.progress import Progress

    from ..surgery.detach import detach as run
    from ..surgery.probe_data import read_probe_data

    quiet_transformers()
    questions = read_probe_data(data=data, image_folder=image_folder, limit=limit) if data is not None else None
    with nullcontext() if as_json else Progress(console=console, transient=True) as bar:
        progress = None if bar is None else _shown_on(bar)
        report = run(
            checkpoint,
            output,
            names,
            rule,
            questions,
            batch_size=batch_size,
            progress=progress,
            forget=forget,
            renormalise=renormalise,
        )
    if as_json:
        print(json.dumps(report))
    else:
        _print_report(report, output)


@app.command()
def attach(
    checkpoint: Checkpoint,
    output: Output,
    original: Annotated[
        Path | None, typer.Option("--from", help="The checkpoint that it was detached from, with the experts in it.")
    ] = None,
    experts: Annotated[str | None, typer.Option(help="Only these come back: a,b")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Put detached experts back into a model, bit for bit, from the one that it was detached from."""
    from ..surgery.attach import attach as run

    report = run(checkpoint, output, original, _names(experts) if experts is not None else [])
    if as_json:
        print(json.dumps(report))
        return
    console.print(f"attached again: {', '.join(report['attached'])}")
    console.print(f"still detached: {', '.join(report['detached']) or 'none'}")
    console.print(f"written: {output} ({' and '.join(report['written'])})")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError(f"--experts is `{text}`; expected names separated by commas")
    return names


def _shown_on(bar: "Progress") -> Callable[[str, int, int], None]:
    tasks: dict[str, Any] = {}

    def progress(label: str, done: int, total: int) -> None:
        if label not in tasks:
            tasks[label] = bar.add_task(label, total=total)
        bar.update(tasks[label], completed=done)

    return progress


# ---- the report ----

_MIB = 2**20
_ROWS = (
    ("loss", "loss, nats per answer token", lambda value: f"{value:.4f}"),
    ("score", "answers right", lambda value: f"{100 * value:.2f} %"),
    ("tower_ms", "tower, ms per image", lambda value: f"{value:.3f}"),
    ("prefill_ms", "tower and prompt, ms per image", lambda value: f"{value:.3f}"),
    ("memory_bytes", "weights in memory, MiB", lambda value: f"{value / _MIB:.2f}"),
    ("file_bytes", "files, MiB", lambda value: f"{value / _MIB:.2f}"),
)


def _print_report(report: dict[str, Any], output: Path) -> None:
    if report["history"]:
        _print_history(report["history"])
    table = Table("", "before", "after", "change")
    before, after, change = report["before"], report["after"], report["change"]
    for key, label, shown in _ROWS:
        if before.get(key) is not None:
            by = f"{100 * change[key]:+.2f} points" if key == "score" else f"{100 * change[key]:+.1f} %"
            table.add_row(label, shown(before[key]), shown(after[key]), by)
    console.print(table)
    console.print(f"detached: {', '.join(report['removed'])}; attached: {', '.join(report['attached']) or 'none'}")
    for note in report["notes"]:
        console.print(note)
    console.print(f"written: {output} ({' and '.join(report['written'])}, detach.json)")


def _print_history(history: list[dict[str, Any]]) -> None:
    table = Table("round", "without", "loss", "answers right", "gain, nats", "own ms", title="leave one out")
    for number, step in enumerate(history, start=1):
        for row in step["candidates"]:
            gone = row["expert"] == step["removed"]
            cells = [
                str(number),
                f"{row['expert']} (removed)" if gone else row["expert"],
                f"{row['loss']:.4f}",
                f"{100 * row['score']:.2f} %",
                f"{row['gain']:+.4f}",
                f"{row['ms']:.3f}",
            ]
            table.add_row(*cells, style="bold" if gone else None, end_section=row is step["candidates"][-1])
    console.print(table)
