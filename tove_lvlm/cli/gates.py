"""`tove gates`: see which expert each token of an image asks, and how much it gets."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..streams import quiet_transformers
from .app import JsonFlag, app, console

DEFAULT_OUTPUT = Path("outputs/gates")


@app.command()
def gates(
    checkpoint: Annotated[Path, typer.Argument(help="A tower, or what a training script wrote.")],
    images: Annotated[list[Path], typer.Argument(help="Pictures: any format that Pillow reads.")],
    output: Annotated[
        Path | None, typer.Option(help=f"Folder for the pictures; {DEFAULT_OUTPUT}, and with --json none.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    as_json: JsonFlag = False,
) -> None:
    """Draw, for each image, every expert's map, its gate over the tokens and the strength of what it adds."""
    from ..data.images import read_image
    from ..viz.gates import as_json as figures_of
    from ..viz.gates import find_gated_tower, gates_of_images
    from ..viz.gates_files import check_output, write_gates

    folder = output or (None if as_json else DEFAULT_OUTPUT)
    if folder is not None:
        check_output(folder, [checkpoint, *images])
    for image in images:
        read_image(image)  # a broken one is named before the model is loaded
    loaded = _open(checkpoint)
    find_gated_tower(loaded)
    results = list(gates_of_images(loaded, images, batch_size))
    report = {"checkpoint": str(checkpoint), "kind": loaded.kind, **figures_of(images, results)}
    files = [] if folder is None else write_gates(folder, images, results, report)
    if as_json or folder is None:
        print(json.dumps(report))
        return
    _print_means(report)
    console.print(f"{len(files)} files in {folder}; open {folder / 'index.html'}", soft_wrap=True)


def _open(checkpoint: Path):
    from ..checkpoints import open_checkpoint

    quiet_transformers()
    return open_checkpoint(checkpoint)


def _print_means(report: dict) -> None:
    table = Table("expert", "gate mass", "first", "strength")
    for name in report["experts"]:
        mass, share, strength = (report["mean"][key][name] for key in ("gate_mass", "first_share", "strength"))
        gone = name in report["detached"]
        table.add_row(name, *(["detached", "", ""] if gone else [f"{mass:.3f}", f"{share:.1%}", f"{strength:.3f}"]))
    console.print(table)
