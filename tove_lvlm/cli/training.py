"""Commands about training: `tove demo`."""

from pathlib import Path
from typing import Annotated

import typer

from .app import app, console


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Where data, models and results go.")] = Path("outputs/miniature"),
    seed: Annotated[int, typer.Option(help="Seed of data order and of initialisation.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Training steps per stage instead of the YAMLs'.", min=1)] = None,
    scenes: Annotated[tuple[int, int] | None, typer.Option(help="Training and held-out scenes.")] = None,
) -> None:
    """Train ToVE_Vicuna and CLIP-only in the miniature world with the real scripts, and compare them."""
    from .. import demo as demonstration

    chosen = scenes or (demonstration.NUM_SCENES, demonstration.NUM_HELDOUT)
    demonstration.run(output, seed=seed, steps=steps, scenes=chosen, console=console)
