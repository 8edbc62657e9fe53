"""stdout and stderr as a shell may leave them: closed, full, or with an encoding that lacks most characters."""

import contextlib
import os
import sys
from typing import Any


def prepare_streams(keep_going: bool = False) -> None:
    """Let a character that the terminal's encoding lacks be written as its number, and a closed stream swallow all.

    Args:
        keep_going: Whether what cannot be written is dropped, as on a full disk: a training's result is no print.
    """
    _fill_closed()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, _Lenient):
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        if keep_going:
            setattr(sys, name, _Lenient(stream))


def quiet_transformers() -> None:
    """No bars and no warnings of transformers' own, which would mix with ours.

    Its remarks, on image backends for instance, are not for somebody who asks a model.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _fill_closed() -> None:
    """A closed stream's number would be given to the next file that is opened, and what is printed would land there."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))


class _Lenient:
    """A stream whose writing never fails."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
