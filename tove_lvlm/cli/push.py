"""The command that brings a trained model to the hub: `tove push`."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .app import JsonFlag, app, console


@app.command()
def push(
    checkpoint: Annotated[Path, typer.Argument(help="A whole model's folder, or a tower's.")],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the hub; made where there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Make it for its owner alone.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; the main one when left out.")] = None,
    pull_request: Annotated[bool, typer.Option("--pr", help="Open a pull request instead.")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be uploaded.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Upload a trained model with a card, or a tower with a card and the code that loads it without this package.

    Checkpoints of the run, logs and an adapter in the folder stay here, and so do this machine's paths.
    """
    from ..checkpoints.publish import stage
    from ..weights.upload import upload

    with tempfile.TemporaryDirectory() as staging:
        folder = Path(staging) / "model"
        sizes = stage(checkpoint, repo, folder)
        for name, size in {} if as_json else sizes.items():
            print(f"{size:>14,}  {name}")
        address = None
        if not dry_run:
            address = upload(
                folder,
                repo,
                private=private or None,
                revision=revision,
                create_pr=pull_request,
                message=message or f"Upload {repo.rpartition('/')[2]}",
            )
    if as_json:
        print(json.dumps({"repo": repo, "files": sizes, "commit": address}))
    elif address:
        console.print(address, soft_wrap=True, highlight=False)
