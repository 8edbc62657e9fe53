"""`tove cache`: the expert cache of training runs, filled, looked at, checked and pruned."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ..streams import quiet_transformers
from .app import FurtherOptions, JsonFlag, Options, app, choose_device, console, counted

if TYPE_CHECKING:
    from ..feature_cache.survey import PartSurvey

cache = typer.Typer(
    help="The expert cache (train.expert_cache): what frozen backbones gave for each image.", no_args_is_help=True
)
app.add_typer(cache, name="cache")

Folder = Annotated[Path, typer.Argument(help="The cache's folder, as in train.expert_cache.")]


@cache.command()
def build(
    cfg_path: Annotated[Path, typer.Option("--cfg-path", help="A training YAML, with train.expert_cache.")],
    options: Options = None,
    further: FurtherOptions = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; left out: a GPU where there is one.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images at once; else as in the run.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fill a run's cache ahead of training; under torchrun or the DeepSpeed launcher on any number of ranks.

    Exit code 1 where an image is broken or not all could be kept.
    """
    import dataclasses

    from .. import dist
    from ..recipes.fill_cache import fill

    quiet_transformers()
    with counted("images", dist.is_main()) as update:
        filled = fill(
            cfg_path,
            [*(options or []), *(further or [])],
            device=choose_device(device),
            batch_size=batch_size,
            progress=update,
        )
    if as_json:
        print(json.dumps(dataclasses.asdict(filled)))
    else:
        console.print(f"{filled.images:,} images: {filled.computed:,} features computed, {filled.read:,} there already")
        for message in filled.broken:
            console.print(f"broken: {message}", markup=False, soft_wrap=True)
        if filled.stopped is not None:
            console.print(f"not all are kept: {filled.stopped}", markup=False, soft_wrap=True)
    raise typer.Exit(1 if filled.broken or filled.stopped else 0)


@cache.command()
def stat(folder: Folder, as_json: JsonFlag = False) -> None:
    """What a cache holds: backbones, images, bytes."""
    from ..feature_cache import CacheFolder
    from ..feature_cache.survey import survey

    _show(survey(CacheFolder(folder, make=False)), as_json)


@cache.command()
def verify(folder: Folder, as_json: JsonFlag = False) -> None:
    """Compare every record with its checksum. Exit code 1 where something is damaged, which a run computes again."""
    from ..feature_cache import CacheFolder
    from ..feature_cache.survey import survey

    with counted("bytes") as update:
        parts = survey(CacheFolder(folder, make=False), read_records=True, progress=update)
    _show(parts, as_json)
    raise typer.Exit(1 if any(part.problems for part in parts) else 0)


@cache.command()
def prune(
    folder: Folder,
    drop: Annotated[
        list[str] | None, typer.Option(help="A part of `tove cache stat`, or a backbone's name; may be repeated.")
    ] = None,
    size_gb: Annotated[
        float | None, typer.Option(min=0, help="Remove the oldest shards until no more is left.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Remove what is repeated or damaged and what killed processes left; whole parts, or the oldest, if asked to."""
    import dataclasses

    from ..feature_cache import CacheFolder
    from ..feature_cache.prune import prune as run

    with counted("parts") as update:
        report = run(CacheFolder(folder, make=False), drop=drop or [], size_gb=size_gb, progress=update)
    if as_json:
        print(json.dumps(dataclasses.asdict(report)))
        return
    console.print(
        f"{report.bytes_before / 1e9:,.3f} GB before, {report.bytes_after / 1e9:,.3f} GB now: {report.repeated:,} "
        f"repeated and {report.damaged:,} damaged records, {len(report.dropped_parts)} parts and "
        f"{report.outdated_shards} old shards removed",
        soft_wrap=True,
    )
    if report.in_use:
        console.print(f"{report.in_use} shards are being written and stay")
    for message in report.left_alone:
        console.print(f"left alone: {message}", markup=False, soft_wrap=True)


def _show(parts: "list[PartSurvey]", as_json: bool) -> None:
    from ..feature_cache.survey import as_json as plain

    if as_json:
        print(json.dumps(plain(parts)))
        return
    table = Table()
    for column in ("part", "backbone", "images", "bytes an image", "GB", "shape", "kept as", "computed in"):
        table.add_column(column, no_wrap=column in ("part", "shape"))  # a part is what --drop takes
    for part in parts:
        about = part.about
        table.add_row(
            part.folder,
            part.name,
            f"{part.images:,}",
            f"{part.bytes / part.images:,.0f}" if part.images else "",
            f"{part.bytes / 1e9:,.3f}",
            " x ".join(map(str, about.get("shape", []))),
            str(about.get("dtype", "")),
            str(about.get("compute", "")),
        )
    console.print(table)
    for part in parts:
        for problem in part.problems:
            console.print(f"{part.folder}: {problem}", markup=False, soft_wrap=True)
