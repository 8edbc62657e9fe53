"""The typer application and what its commands share. Nothing heavy is imported here."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

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
