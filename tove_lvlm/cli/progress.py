"""Bars on stderr, so that a program can read stdout."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def counted(label: str, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar while inside; gives `update(done, total)`.

    Args:
        label: What is counted.
        shown: Whether this process shows it, of several ranks one.
    """
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as bar:
        row = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(row, completed=done, total=total)
