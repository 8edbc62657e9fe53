"""Command that gives a trained LLaVA model a ToVE tower: `tove graft`."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from .app import FurtherOptions, JsonFlag, Options, app, console


@app.command()
def graft(
    checkpoint: Annotated[Path, typer.Argument(help="LlavaForConditionalGeneration folder with a plain CLIP.")],
    tower: Annotated[Path, typer.Option(help="YAML of the tower; its CLIP must have the checkpoint's sizes.")],
    output: Annotated[Path, typer.Option(help="Folder to write.")],
    options: Options = None,
    further: FurtherOptions = None,
    as_json: JsonFlag = False,
) -> None:
    """Put a ToVE tower around the CLIP of a trained LLaVA model: same answers at first, then train tove_fusion."""
    from ..surgery.graft import graft as write

    done = write(checkpoint, tower, output, [*(options or []), *(further or [])])
    if as_json:
        print(json.dumps(dataclasses.asdict(done) | {"output": str(done.output)}))
        return
    console.print(
        f"{done.output}: the checkpoint's own CLIP (its weights, layer {done.select_layer}, not the YAML's) with "
        f"{', '.join(done.experts) or 'no experts'}; {done.added:,} parameters added, {done.trainable:,} of them in "
        "tove_fusion, whose last layers are zero; train it next:\n"
        f"  model.llm={done.output} model.vision_tower={done.output} train.freeze_mm_mlp_adapter=true",
        soft_wrap=True,
        highlight=False,
    )
