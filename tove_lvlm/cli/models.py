"""Commands that use a trained model: `tove chat`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..streams import quiet_transformers
from .app import JsonFlag, app, console, heavy_imports


@app.command()
def chat(
    image: Annotated[Path, typer.Argument(help="A photograph: any format that Pillow reads.")],
    question: Annotated[str | None, typer.Argument(help="Left out: ask as long as you like.")] = None,
    also: Annotated[
        list[Path] | None, typer.Option(help="A further image that is asked about; as often as there are any.")
    ] = None,
    model: Annotated[Path, typer.Option(help="A trained model's folder.")] = Path("outputs/miniature/tove"),
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    as_json: JsonFlag = False,
) -> None:
    """Ask a trained model about an image, or about several (`--also`).

    Of several each stands where the question has `<image>`, or else before it.
    """
    with heavy_imports():
        from ..inference.chat import Chat

    quiet_transformers()
    talk = Chat.load(model)
    files = [image, *(also or [])]
    pictures = [talk.open_image(file) for file in files]
    if question is not None:
        answer = talk.ask(pictures, question, max_new_tokens=max_new_tokens)
        named = [str(file) for file in files] if also else str(image)
        print(json.dumps({"image": named, "question": question, "answer": answer}) if as_json else answer)
        return
    about = talk.about(pictures[0]) if not also else None
    console.print("Ask about the image; an empty line ends." if not also else "Ask; an empty line ends.")
    while line := console.input("[bold]> [/bold]").strip():
        answer = about.ask(line, max_new_tokens) if about else talk.ask(pictures, line, max_new_tokens)
        console.print(answer)
