"""Commands that write a checkpoint for another place: `tove export`, `tove relocate`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .app import JsonFlag, app, console

_FORMATS = ("merged", "llava", "transformers", "remote-code", "gguf-source")


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A trained model's folder; of LLaVA's own for `transformers`.")],
    output: Annotated[Path, typer.Option(help="Folder to write; for LLaVA its name must have `llava` in it.")],
    to_format: Annotated[str, typer.Option("--format", help=" | ".join(_FORMATS))] = "llava",
    as_json: JsonFlag = False,
) -> None:
    """Write an adapter merged into its model, a trained model in LLaVA's layout, or LLaVA's in transformers'; or its
    tower with the code that loads it where this package is not installed (remote-code); or the parts that llama.cpp's
    converters read (gguf-source).
    """
    from ..config import UserError
    from ..storage import refuse_filled, refuse_inputs

    if to_format not in _FORMATS:
        raise UserError(f"--format is `{to_format}`; valid: {' | '.join(_FORMATS)}")
    refuse_inputs(output, [checkpoint])
    refuse_filled(output)  # before minutes of loading
    further: list[str] = []
    if to_format == "remote-code":
        from ..checkpoints import open_tower
        from ..tower.remote_code import save_remote_code

        folder = save_remote_code(open_tower(checkpoint), output)
    elif to_format == "merged":
        from ..checkpoints.merged import export_merged

        folder = export_merged(checkpoint, output)
    elif to_format == "gguf-source":
        from ..checkpoints.gguf_source import commands, export_gguf_source

        folder = export_gguf_source(checkpoint, output)
        further = commands(folder)
    else:
        from ..hosts.llava import layout

        write = layout.to_llava if to_format == "llava" else layout.to_transformers
        folder = write(checkpoint, output)
    if as_json:
        print(json.dumps({"format": to_format, "output": str(folder)} | ({"commands": further} if further else {})))
        return
    console.print(f"{folder}: in the layout of {to_format}", soft_wrap=True, highlight=False)
    for command in further:
        console.print(f"    {command}", soft_wrap=True, highlight=False, markup=False)


@app.command()
def relocate(
    checkpoint: Annotated[Path, typer.Argument(help="An adapter, stage 1's folder, or an output_dir with one.")],
    llm: Annotated[str | None, typer.Option(help="Where its language model is now.")] = None,
    tower: Annotated[str | None, typer.Option(help="Where its tower's YAML is now.")] = None,
    vision_tower: Annotated[str | None, typer.Option(help="Where the folder of its vision tower is now.")] = None,
    clip: Annotated[str | None, typer.Option(help="Where the CLIP of a CLIP-only model is now.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write down where the parts that a checkpoint refers to are now: every command finds them from then on."""
    from ..checkpoints.relocate import relocate as write

    given = {"llm": llm, "tower": tower, "vision_tower": vision_tower, "clip": clip}
    written = write(checkpoint, {key: place for key, place in given.items() if place is not None})
    if as_json:
        print(json.dumps({"written": [str(path) for path in written]}))
        return
    console.print("written: " + ", ".join(map(str, written)), markup=False, soft_wrap=True)
