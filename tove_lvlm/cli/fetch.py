"""The command that brings weights to where there is no network: `tove fetch`."""

import json
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ..config import UserError
from .app import FurtherOptions, JsonFlag, Options, app, console

if TYPE_CHECKING:
    from ..weights.mirror import MirroredRepository


@app.command()
def fetch(
    source: Annotated[
        Path, typer.Argument(help="A tower's YAML, the folder of a light one, or a training YAML with its tower.")
    ],
    to: Annotated[Path, typer.Option(help="The mirror folder; it may hold a part already, or other towers' weights.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be downloaded.")] = False,
    options: Options = None,
    further: FurtherOptions = None,
    as_json: JsonFlag = False,
) -> None:
    """Download all that a tower, or a training run with its language model, needs, for a machine without network.

    An interrupted download goes on where it stopped; sizes and checksums are compared. There, set TOVE_MIRROR=DIR (and
    HF_HUB_OFFLINE=1).
    """
    from huggingface_hub import constants

    from ..lvlm.weight_sources import TEXT_KEYS, read_weight_sources
    from ..storage import refuse_inputs
    from ..weights import mirror

    refuse_inputs(to, [source], may_contain=True)
    if constants.is_offline_mode():
        raise UserError("HF_HUB_OFFLINE is set, so nothing can be downloaded; unset it for this command")
    parts = read_weight_sources(source, [*(options or []), *(further or [])])
    repositories = mirror.plan(parts, to, with_text=[f"model.{key}" for key in TEXT_KEYS])
    mirror.check_space(repositories, to)
    states = _states(repositories, to)
    refused: dict[str, str] = {}
    if not dry_run:
        with _progress(repositories) as progress:
            fetched, refused = mirror.fill(repositories, to, progress)
        states = {name: _after(name, state, fetched, refused) for name, state in states.items()}
    report = {"to": str(to), "repositories": _rows(repositories, states), "elsewhere": _elsewhere(parts)}
    if as_json:
        print(json.dumps(report | {"refused": list(refused.values())}))
    else:
        _print(report)
    if refused:
        raise UserError("; ".join(refused.values()))


def _states(repositories: Sequence["MirroredRepository"], to: Path) -> dict[str, str]:
    """By size alone; checksums are compared when the folder is filled."""
    from ..weights.download import size_here

    states = {}
    for repository in repositories:
        for file in repository.files:
            path, part = to / repository.repo / file.name, size_here(file, to / repository.repo)
            complete = path.is_file() and path.stat().st_size == file.size
            states[f"{repository.repo}/{file.name}"] = (
                "there" if complete else f"{part / file.size:.0%} there" if part else "missing"
            )
    return states


def _after(name: str, state: str, fetched: Sequence[str], refused: dict[str, str]) -> str:
    if name in fetched:
        return "downloaded"
    return "refused" if any(name.startswith(f"{repo}/") for repo in refused) else state


def _rows(repositories: Sequence["MirroredRepository"], states: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "repo": repository.repo,
            "revision": repository.revision,
            "commit": repository.commit,
            "parts": list(repository.parts),
            "files": [
                {
                    "name": file.name,
                    "bytes": file.size,
                    "sha256": file.sha256,
                    "state": states[f"{repository.repo}/{file.name}"],
                }
                for file in repository.files
            ],
        }
        for repository in repositories
    ]


def _elsewhere(parts: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts that are on no hub: what they are read from, and whether it is here."""
    from ..config.sources import is_hub_id, portable
    from ..weights.sources import status

    return [
        {"part": part, "pretrained": portable(source.pretrained) or "none", "state": location.state}
        for part, source in parts.items()
        if source.pretrained is None or not is_hub_id(source.pretrained)
        for location in [status(source)]
    ]


@contextmanager
def _progress(repositories: Sequence["MirroredRepository"]):
    """A bar over all bytes, on stderr so that a program can read stdout."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        total = sum(file.size for repository in repositories for file in repository.files)
        task, downloaded = bars.add_task("", total=total), {}

        def update(file: Any, size: int) -> None:
            downloaded[f"{file.repo}/{file.name}"] = size
            bars.update(task, description=f"{file.repo}/{file.name}", completed=sum(downloaded.values()))

        yield update


def _print(report: dict[str, Any]) -> None:
    table = Table("part", "from", "revision", "file", "MB", "state")
    for row in report["repositories"]:
        for file in row["files"]:
            revision = f"{row['revision']} ({row['commit'][:8]})" if row["revision"] != row["commit"] else row["commit"]
            size = f"{file['bytes'] / 1e6:.1f}"
            table.add_row(", ".join(row["parts"]), row["repo"], revision, file["name"], size, file["state"])
    for row in report["elsewhere"]:
        table.add_row(row["part"], row["pretrained"], "", "", "", row["state"])
    console.print(table)
    console.print(f"mirror: TOVE_MIRROR={Path(report['to']).absolute()}", soft_wrap=True, highlight=False)
