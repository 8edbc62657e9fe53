"""Commands that use a trained model: `tove chat`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .app import JsonFlag, app, console, heavy_imports
from .progress import quiet_transformers


@app.command()
def chat(
    image: Annotated[Path, typer.Argument(help="A photograph: any format that Pillow reads.")],
    question: Annotated[str | None, typer.Argument(help="Left out: ask as long as you like.")] = None,
    model: Annotated[Path, typer.Option(help="A trained model's folder.")] = Path("outputs/miniature/tove"),
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    as_json: JsonFlag = False,
) -> None:
    """Ask a trained model about an image."""
    with heavy_imports():
        from ..inference.chat import Chat

    quiet_transformers()
    talk = Chat.load(model)
    picture = talk.open_image(image)
    if question is not None:
        answer = talk.ask(picture, question, max_new_tokens=max_new_tokens)
        print(json.dumps({"image": str(image), "question": question, "answer": answer}) if as_json else answer)
        return
    about = talk.about(picture)
    console.print("Ask about the image; an empty line ends.")
    while line := console.input("[bold]> [/bold]").strip():
        console.print(about.ask(line, max_new_tokens=max_new_tokens))
