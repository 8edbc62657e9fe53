"""Errors that are the user's to mend: one line for them, no traceback."""

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class UserError(ValueError):
    """Something the user gave is wrong; the message is one line for them and no traceback is needed."""


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
