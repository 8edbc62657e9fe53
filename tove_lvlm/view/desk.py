"""Between the page's visitors and the worker: whose request is being answered, and what may be cancelled by whom."""

import threading
from collections.abc import Generator, Sequence
from contextlib import closing

from .requests import Event, ModelAbout, Request
from .worker import Worker


class Desk:
    """Takes requests of several visitors and gives them to one worker, in their order.

    Args:
        worker: Started.
        models: What it said of its models.
    """

    def __init__(self, worker: Worker, models: Sequence[ModelAbout]):
        self._worker, self.models = worker, list(models)
        self._served: str | None = None
        self._lock = threading.Lock()

    def run(self, request: Request, visitor: str) -> Generator[Event]:
        """See `Worker.run`.

        Args:
            request: What is wanted.
            visitor: Who wants it: gradio's session.
        """
        try:
            with closing(self._worker.run(request, lambda: self._serve(visitor))) as events:
                yield from events
        finally:
            with self._lock:
                self._served = None if self._served == visitor else self._served

    def _serve(self, visitor: str) -> None:
        with self._lock:
            self._served = visitor

    def last(self, request: Request, visitor: str) -> Event:
        """The last event of a request, which says all."""
        *_, event = self.run(request, visitor)
        return event

    def cancel(self, visitor: str) -> None:
        """End this visitor's request, if it is the one being answered."""
        with self._lock:
            if self._served == visitor:
                self._worker.cancel()
