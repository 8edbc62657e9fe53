"""The command `tove`: a thin face over the package. Everything heavy is imported inside the command that needs it."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from .config import UserError

app = typer.Typer(
    help="ToVE: a hub of frozen vision experts with a token-aware gate, as a vision tower for LLaVA-style models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
CfgPath = Annotated[Path, typer.Option("--cfg-path", help="A project's YAML, as the training scripts take it.")]
Options = Annotated[list[str] | None, typer.Option("--options", help="Overrides: a.b=c d.e=f ...")]
# `--options` takes one value as far as click knows; the further ones arrive as arguments.
FurtherOptions = Annotated[list[str] | None, typer.Argument(hidden=True)]


def main() -> None:
    """Entry point: what the user gave wrong ends in one line and exit code 2."""
    try:
        app()
    except (UserError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


@app.command()
def experts(as_json: JsonFlag = False) -> None:
    """List the expert families that a tower YAML can name."""
    from .experts import EXPERTS

    rows = [{"family": name, "about": _first_line(EXPERTS.get(name))} for name in EXPERTS.names()]
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("family", "what it is")
    for row in rows:
        table.add_row(row["family"], row["about"])
    console.print(table)


@app.command()
def info(cfg_path: CfgPath, options: Options = None, further: FurtherOptions = None, as_json: JsonFlag = False) -> None:
    """Sizes of a project's model without its weights: parameters, visual tokens, FLOPs, memory per GPU."""
    from .train.report import budget_report, print_budget

    report = budget_report(cfg_path, [*(options or []), *(further or [])])
    if as_json:
        print(json.dumps(report))
    else:
        print_budget(report, console)


@app.command()
def chat(
    image: Annotated[Path, typer.Argument(help="A photograph: any format that Pillow reads.")],
    question: Annotated[str | None, typer.Argument(help="Left out: ask as long as you like.")] = None,
    model: Annotated[Path, typer.Option(help="A trained model's folder.")] = Path("outputs/miniature/tove"),
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    as_json: JsonFlag = False,
) -> None:
    """Ask a trained model about an image."""
    from transformers.utils import logging as transformers_logging

    from .lvlm.chat import Chat

    transformers_logging.set_verbosity_error()  # its remarks on image backends are not for somebody who chats
    talk = Chat.load(model)
    picture = talk.open_image(image)
    if question is not None:
        answer = talk.ask(picture, question, max_new_tokens=max_new_tokens)
        print(json.dumps({"image": str(image), "question": question, "answer": answer}) if as_json else answer)
        return
    console.print("Ask about the image; an empty line ends.")
    while line := console.input("[bold]> [/bold]").strip():
        console.print(talk.ask(picture, line, max_new_tokens=max_new_tokens))


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Where data, models and results go.")] = Path("outputs/miniature"),
    seed: Annotated[int, typer.Option(help="Seed of data order and of initialisation.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Training steps per stage instead of the YAMLs'.", min=1)] = None,
    scenes: Annotated[tuple[int, int] | None, typer.Option(help="Training and held-out scenes.")] = None,
) -> None:
    """Train ToVE_Vicuna and CLIP-only in the miniature world with the real scripts, and compare them."""
    from . import demo as demonstration

    chosen = scenes or (demonstration.NUM_SCENES, demonstration.NUM_HELDOUT)
    demonstration.run(output, seed=seed, steps=steps, scenes=chosen, console=console)


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().split("\n")[0]
