"""One process with the models, which takes one request after the other.

It is a process of its own so that a model that dies (out of memory, a broken kernel) takes no page with it: who asked
is told why, and the next request finds a new process. What is asked can be cancelled between two tokens or batches.
"""

import contextlib
import logging
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..config import UserError
from ..storage import short_names
from .requests import Answer, Ask, Event, Failed, Look, MeasureUsage, ModelAbout, Request, Seen, Usage

logger = logging.getLogger(__name__)

_LAST = (Answer, Seen, Usage, Failed)
"""Events after which nothing more comes."""
_PATIENCE = 5.0
"""Seconds for a process to end by itself."""


class Worker:
    """The process, from the side of who asks. `start` it before anything is asked.

    Args:
        folders: The models'.
        device: Where they run.
    """

    def __init__(self, folders: Sequence[Path], device: str):
        self._folders, self._device = [Path(folder) for folder in folders], device
        self._context: Any = multiprocessing.get_context("spawn")
        self._turn = threading.Lock()
        self._cancel = self._context.Event()
        self._process: Any = None
        self._pipe: Connection | None = None

    def start(self) -> list[ModelAbout]:
        """Load the models; what there is to say of each.

        Raises:
            UserError: A model cannot be loaded; the message says why.
        """
        with self._turn:
            return self._start()

    def run(self, request: Request, when_begun: Callable[[], None] = lambda: None) -> Generator[Event]:
        """Ask, and hear what comes of it; whoever stops listening cancels it.

        Args:
            request: What is wanted.
            when_begun: Called when its turn has come.

        Yields:
            Events, the last of them `Answer`, `Seen`, `Usage` or `Failed`.
        """
        with self._turn:
            try:
                pipe = self._ready()
            except UserError as error:
                yield Failed(message=str(error))
                return
            self._cancel.clear()
            when_begun()
            is_over = False
            try:
                pipe.send(request)
                while not is_over:
                    event = pipe.recv()
                    is_over = isinstance(event, _LAST)
                    yield event
            except (EOFError, OSError):
                is_over = True
                yield Failed(message=self._cause_of_death())
            finally:
                if not is_over:
                    self._drain(pipe)

    def cancel(self) -> None:
        """End what is being answered, at the next token or batch."""
        self._cancel.set()

    def close(self) -> None:
        """End the process."""
        self._cancel.set()
        process, self._process, pipe, self._pipe = self._process, None, self._pipe, None
        if pipe is not None:
            pipe.close()
        if process is not None:
            process.join(_PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()

    @property
    def process_id(self) -> int | None:
        """Of the process with the models; None where there is none."""
        return None if self._process is None else self._process.pid

    def _start(self) -> list[ModelAbout]:
        here, there = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(there, self._folders, self._device, self._cancel), daemon=True
        )
        self._process.start()
        there.close()
        try:
            found = here.recv()
        except (EOFError, OSError):
            raise UserError(f"the models could not be loaded: {self._cause_of_death()}") from None
        if isinstance(found, Failed):
            self._process.join()
            self._process = None
            raise UserError(found.message)
        self._pipe = here
        return found

    def _ready(self) -> Connection:
        if self._process is not None and not self._process.is_alive():
            raise UserError(self._cause_of_death())
        if self._process is None or self._pipe is None:
            self._start()
        if self._pipe is None:
            raise UserError("the models are not loaded")
        return self._pipe

    def _cause_of_death(self) -> str:
        """Why the process is not there any more; it is forgotten."""
        process, self._process, self._pipe = self._process, None, None
        if process is None:
            return "the page is being closed"
        process.join(_PATIENCE)
        code = process.exitcode
        how = f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name
        hint = "; the system ends a process so when memory runs out" if code == -signal.SIGKILL else ""
        return f"The process with the models has died ({how}{hint}). Ask again: they are loaded anew."

    def _drain(self, pipe: Connection) -> None:
        """Let a request that nobody listens to any more come to its end."""
        self._cancel.set()
        with contextlib.suppress(EOFError, OSError):
            while not isinstance(pipe.recv(), _LAST):
                pass


def _serve(pipe: Connection, folders: Sequence[Path], device: str, cancel: Any) -> None:
    """The process with the models."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the page, which ends this process
    try:
        from ..streams import quiet_transformers
        from .models import ViewedModel

        quiet_transformers()
        models = [ViewedModel(folder, device) for folder in folders]
        named = zip(models, folders, short_names(folders), strict=True)
        pipe.send([model.about(folder, name) for model, folder, name in named])
    except Exception as error:
        pipe.send(Failed(message=_sentence(error)))
        return
    with contextlib.suppress(EOFError, OSError):  # the page is gone
        while True:
            request = pipe.recv()
            try:
                pipe.send(_answer(models, request, pipe, cancel))
            except Exception as error:
                if not _is_expected(error):
                    logger.exception("a request failed: %s", request)
                pipe.send(Failed(message=_sentence(error)))


def _answer(models: Sequence[Any], request: Request, pipe: Connection, cancel: Any) -> Event:
    def tell(event: Event) -> bool:
        pipe.send(event)
        return not cancel.is_set()

    model = models[request.model]
    match request:
        case Ask():
            return model.ask(request, tell)
        case Look():
            return model.look(request)
        case MeasureUsage():
            return model.usage(request, tell)
    raise TypeError(f"unknown request {request!r}")


def _is_expected(error: Exception) -> bool:
    """Whether who asked gave something wrong."""
    from ..data.errors import DataError

    return isinstance(error, UserError | DataError)


def _sentence(error: Exception) -> str:
    """One line for who asked."""
    if _is_expected(error):
        return str(error)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return "The device has too little memory for this question: switch experts off, or ask a shorter one."
    return f"The model failed: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
