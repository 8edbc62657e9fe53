"""The command `tove view`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ..config import UserError
from .app import app, choose_device, console, heavy_imports

PASSWORD = "TOVE_VIEW_PASSWORD"
"""In the environment: an argument would stand in the list of processes."""


@app.command()
def view(
    model: Annotated[Path, typer.Option(help="A trained model's folder.")] = Path("outputs/miniature/tove"),
    compare: Annotated[
        list[Path] | None, typer.Option(help="A further model to compare; as often as there are any.")
    ] = None,
    runs: Annotated[
        list[Path] | None, typer.Option(help="Folders of `tove eval` whose answers differ; at least two.")
    ] = None,
    data: Annotated[Path, typer.Option(help="Of --runs: as for `tove eval`.")] = Path("."),
    images: Annotated[Path | None, typer.Option(help="Of --runs: image folder, where it is elsewhere.")] = None,
    examples: Annotated[Path | None, typer.Option(help="A folder of pictures to offer.")] = None,
    device: Annotated[str | None, typer.Option(help="Else CUDA when there is one.")] = None,
    host: Annotated[str, typer.Option(help=f"Address to listen on; others need {PASSWORD}.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
) -> None:
    """A page in the browser: ask a model, look at its gate, switch experts off and on, compare models."""
    with heavy_imports():
        from ..checkpoints import detect
        from ..view.server import ViewConfig
        from ..view.server import view as show

    models = (model, *(compare or []))
    for folder in models:
        if not detect(folder).has_language_model:
            raise UserError(f"`{folder}` is a tower without a language model: it answers nothing")
    config = ViewConfig(
        models=models,
        examples=examples,
        runs=tuple(runs or ()),
        data=data,
        images=images,
        device=choose_device(device),
        host=host,
        port=port,
        password=os.environ.get(PASSWORD),
    )
    console.print("loading ...", highlight=False)
    show(config, not no_browser, lambda line: console.print(line, markup=False, soft_wrap=True, highlight=False))
