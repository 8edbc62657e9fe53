"""The typer application and what its commands share. Nothing heavy is imported here."""

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator
from typing import Annotated

import typer
from rich.console import Console

from ..config import UserError

app = typer.Typer(
    help="ToVE: a hub of frozen vision experts with a token-aware gate, as a vision tower for LLaVA-style models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Options = Annotated[list[str] | None, typer.Option("--options", help="Overrides: a.b=c d.e=f ...")]
# `--options` takes one value as far as click knows; the further ones arrive as arguments.
FurtherOptions = Annotated[list[str] | None, typer.Argument(hidden=True)]


@app.callback()
def launched(local_rank: Annotated[int, typer.Option("--local_rank", hidden=True)] = 0) -> None:
    """DeepSpeed's launcher passes `--local_rank` before the command's own arguments; the environment has it too."""


@contextlib.contextmanager
def heavy_imports() -> Iterator[None]:
    """Import torch and transformers without looking for garbage.

    Their modules are a million objects that stay; Python would look through them again and again while they come, and
    then at every later collection: an eighth to a quarter of the time in which `tove chat` starts.
    """
    if not gc.isenabled() or "transformers.modeling_utils" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


@contextlib.contextmanager
def counted(label: str, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, so that a program can read stdout, while inside; gives `update(done, total)`.

    Args:
        label: What is counted.
        shown: Whether this process shows it, of several ranks one.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as bar:
        row = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(row, completed=done, total=total)


def choose_device(requested: str | None) -> str:
    """The device that `--device` names; without it this rank's GPU, or the CPU.

    Raises:
        UserError: There is no such device.
    """
    import torch

    if requested is None:
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=requested)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {requested}: there is no such device here; for example cpu or cuda:0") from error
    return requested
