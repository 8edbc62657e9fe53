"""Errors that are the user's to mend: one line for them, no traceback."""

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


_LONGEST = 1500
"""Characters of a message; a foreign file's content or a library's table is no message."""
_SHORTEST_HIDDEN = 4
_hidden: dict[str, str] = {}


def hide(value: str, shown: str) -> None:
    """Show something else wherever a value would stand in a message.

    Args:
        value: Such as an environment variable's; one of less than four characters is no secret.
        shown: What stands in its place.
    """
    if len(value) >= _SHORTEST_HIDDEN:
        _hidden[value] = shown


class UserError(ValueError):
    """Something the user gave is wrong; the message is one line for them and no traceback is needed."""

    def __str__(self) -> str:
        text = super().__str__()
        for value, shown in _hidden.items():
            text = text.replace(value, shown)
        text = " ".join(text.splitlines())  # what was given may have line breaks in it
        if len(text) <= _LONGEST:
            return text
        return f"{text[: _LONGEST * 2 // 3]} [{len(text) - _LONGEST} characters left out] {text[-_LONGEST // 3 :]}"


class ConfigError(UserError):
    """A configuration does not fit: names the dotted key, the value and what would be valid."""


def exit_on_error(main: Callable[..., T]) -> Callable[..., T]:
    """Let a script end with one line and exit code 2 when what the user gave is wrong."""

    @functools.wraps(main)
    def wrapped(*args: Any, **kwargs: Any) -> T:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            raise SystemExit(2) from error

    return wrapped
