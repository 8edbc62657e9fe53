"""What stops a run before it does harm: a loss that is no number, a signal, a stall.

See docs/design.md, "Training".
"""

import contextlib
import faulthandler
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

logger = logging.getLogger(__name__)


class TrainingStopped(RuntimeError):
    """The run cannot go on; the message is one line that says where and why."""


class NonFiniteLoss(TrainingStopped):
    """The loss or a weight is NaN or infinite."""

    def __init__(self, problem: str, step: int, sample_ids: Sequence[str]):
        shown = ", ".join(sample_ids[:16]) + (f" and {len(sample_ids) - 16} more" if len(sample_ids) > 16 else "")
        super().__init__(f"{problem} at step {step}; samples on this rank: {shown or 'none'}")
        self.step = step
        self.sample_ids = list(sample_ids)


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignal:
    """Remembers that SIGINT, SIGTERM or SIGHUP (a lost terminal) came, so that the run can end after the step with a
    checkpoint. Under `nohup` SIGHUP stays ignored.

    The DeepSpeed launcher answers Ctrl-C by a SIGTERM on top of the terminal's SIGINT, so that a second signal is not a
    second wish: only the third interrupts at once.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._count = 0

    @contextmanager
    def watching(self) -> Iterator["StopSignal"]:
        """Listen while inside (main thread only; elsewhere nothing is caught)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        kept = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else []
        previous = {number: signal.signal(number, self._on_signal) for number in _SIGNALS if number not in kept}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _on_signal(self, signum: int, frame) -> None:
        self.signum = self.signum or signum
        self._count += 1
        if self._count > 2:
            raise KeyboardInterrupt
        # os.write, because logging is not safe inside a handler.
        if self._count == 1:
            with contextlib.suppress(OSError):  # the terminal is gone
                os.write(2, b"\nstopping after this step; a checkpoint will be written\n")


class Watchdog:
    """Ends the process when no step finishes for `timeout` seconds: a hung collective would wait for ever.

    Args:
        timeout: Seconds; 0 never ends anything.
    """

    EXIT_CODE = 70

    def __init__(self, timeout: float):
        self.timeout = timeout
        self._last = time.monotonic()
        self._step = 0
        self._sample_ids: Sequence[str] = []
        self._ended = threading.Event()

    @contextmanager
    def watching(self) -> Iterator["Watchdog"]:
        """Watch while inside."""
        if self.timeout > 0:
            self._last = time.monotonic()
            threading.Thread(target=self._watch, daemon=True, name="tove-watchdog").start()
        try:
            yield self
        finally:
            self._ended.set()

    def alive(self, step: int, sample_ids: Sequence[str] = ()) -> None:
        """Tell that work goes on.

        Args:
            step: Optimizer step at work.
            sample_ids: Samples at work.
        """
        self._last = time.monotonic()
        self._step, self._sample_ids = step, list(sample_ids)

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self.timeout / 4)):
            idle = time.monotonic() - self._last
            if idle > self.timeout:
                ids = ", ".join(self._sample_ids[:16])
                message = f"no progress for {idle:.0f} s at step {self._step}; samples on this rank: {ids}"
                logger.critical(message)
                faulthandler.dump_traceback(all_threads=True)
                os._exit(self.EXIT_CODE)


def ignore_signals_in_worker(_worker_id: int) -> None:
    """DataLoader workers leave stopping to their parent: the launcher signals the whole process tree."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
