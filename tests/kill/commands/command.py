"""What the suite must know of a command."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

OUTPUT = "llava-out"
"""Name of the output in the folder of a run; `tove export` wants `llava` in it."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command on one set of inputs."""

    name: str
    make: Callable[[Path], None]
    """Write the inputs into an empty folder. Commands with the same function share them; they must not change."""
    argv: Callable[[Path, Path, int], list[str]]
    """(inputs, folder of the run, ranks) -> a script and its arguments, or `tove` and its arguments. All that it writes
    lies in the folder of the run."""
    ranks: tuple[int, ...] = (1,)
    """The numbers of ranks that it is run with."""
    volatile: tuple[str, ...] = ()
    """JSON keys whose values differ between two undisturbed runs."""
    growing: tuple[str, ...] = ()
    """Patterns of files that may hold the first lines only while the command is not at its end."""
    kept: tuple[str, ...] = ()
    """Patterns of files that a killed run leaves for the next one, besides training checkpoints."""
    refuses: bool = False
    """A second start refuses an output that is whole."""
    older: Callable[[Path, Path, int], list[str]] | None = None
    """As `argv`: makes an older output, which the command replaces."""
    serve: Callable[[Path], None] | None = None
    """Runs in a process of its own beside the command: given the inputs; writes the file `url` into their parent."""
    environment: Mapping[str, str] | None = None
    """Besides that of every run; `{url}` stands for what `serve` wrote."""
    is_cold: bool = False
    """Started in a new interpreter, for commands that read the environment on import."""
    share: float = 1.0
    """Of the runs, against other commands'; less for a slow one."""
