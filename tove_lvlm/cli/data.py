"""The command `tove data`."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from .app import JsonFlag, app, console, counted

if TYPE_CHECKING:
    from ..data.check import DataReport

_SHOWN = 20
"""Kinds of broken samples that are listed."""


@app.command()
def data(
    files: Annotated[list[Path], typer.Argument(help="LLaVA JSON or JSON lines, shards, or files of --format.")],
    image_folder: Annotated[Path | None, typer.Option(help="Folder of all image paths.")] = None,
    source_format: Annotated[str, typer.Option("--format", help="llava, or of a base model's source.")] = "llava",
    stage: Annotated[str, typer.Option(help="pretrain or finetune, whose conversation it is for.")] = "finetune",
    tokenizer: Annotated[str | None, typer.Option(help="The language model's: lengths in tokens, not words.")] = None,
    max_length: Annotated[int, typer.Option(help="With --tokenizer: train.model_max_length.", min=1)] = 2048,
    image_tokens: Annotated[int, typer.Option(help="With --tokenizer: tokens of an image.", min=1)] = 576,
    decode: Annotated[bool, typer.Option(help="Decode each image, or only see that it is there.")] = True,
    allow_symlinks: Annotated[bool, typer.Option(help="As data.allow_symlinks.")] = False,
    workers: Annotated[int | None, typer.Option(help="Threads; else as many as cores, 8 at most.", min=1)] = None,
    as_json: JsonFlag = False,
) -> None:
    """Look through training data: what would be refused, skipped or cut, and what is double.

    Exit code 1 where a sample is broken.
    """
    from ..config import UserError
    from ..config.sources import resolve_source
    from ..data.check import DEFAULT_WORKERS, Context, check_data
    from ..data.conversations import PLAIN, V1, template_of

    templates = {"pretrain": PLAIN, "finetune": V1}
    if stage not in templates:
        raise UserError(f"--stage {stage} is unknown; expected {' or '.join(templates)}")
    context = None
    if tokenizer is not None:
        from ..lvlm.build import load_tokenizer
        from ..lvlm.processor import set_chat_template

        loaded = load_tokenizer(resolve_source(tokenizer))
        set_chat_template(loaded, None, f"--tokenizer {tokenizer}")
        templates["finetune"] = template_of(loaded)
        context = Context(tokenizer=loaded, num_image_tokens=image_tokens, max_length=max_length)
    with counted("samples") as update:
        report = check_data(
            files,
            image_folder=image_folder,
            source_format=source_format,
            template=templates[stage],
            context=context,
            decode=decode,
            allow_symlinks=allow_symlinks,
            workers=workers or DEFAULT_WORKERS,
            progress=update,
        )
    if as_json:
        print(json.dumps(report_as_json(report)))
    else:
        _print(report, "words" if context is None else "tokens")
    raise typer.Exit(1 if report.broken else 0)


def report_as_json(report: "DataReport") -> dict[str, object]:
    """The report as plain values; of each kind of broken sample how many and the first."""
    plain = {item.name: getattr(report, item.name) for item in dataclasses.fields(report) if item.name != "broken"}
    broken = [{"reason": kind, "samples": count, "first": str(first)} for kind, count, first in report.reasons]
    return {**plain, "num_broken": len(report.broken), "broken": broken}


def _print(report: "DataReport", unit: str) -> None:
    table = Table(show_header=False)
    table.add_row("samples", f"{report.num_samples:,}")
    table.add_row("with an image", f"{report.num_with_image:,}, of {report.num_images:,} images")
    table.add_row("of text alone", f"{report.num_text_only:,}")
    table.add_row("questions and answers", f"{report.num_rounds:,}")
    if lengths := report.lengths:
        told = f"median {lengths['median']:.0f}, 95 % {lengths['p95']:.0f}, longest {lengths['max']:.0f}"
        table.add_row(unit, told + (f"; {lengths['cut']:.0f} samples are cut" if "cut" in lengths else ""))
    if sizes := report.image_sizes:
        table.add_row("shorter side", f"median {sizes['median']} px, at least {sizes['min']}; longest {sizes['max']}")
        table.add_row("transparent images", f"{report.num_transparent:,}")
    table.add_row("same image and text again", f"{report.num_repeated:,}")
    table.add_row("ids used several times", f"{len(report.same_id):,}")
    table.add_row("broken samples", f"{len(report.broken):,}")
    console.print(table)
    for kind, count, first in report.reasons[:_SHOWN]:
        console.print(f"{count} x {kind}\n    first: {first}", markup=False, soft_wrap=True)
    if len(report.reasons) > _SHOWN:
        console.print(f"and {len(report.reasons) - _SHOWN} other kinds; --json lists them all")
