"""Broken samples: skipped, counted once each by whichever worker meets them, and a bound that stops the run."""

import logging

import torch

from .errors import DataError

logger = logging.getLogger(__name__)


MAX_SHARE, MIN_ERRORS = 0.01, 5


def allowed_errors(num_samples: int, max_share: float = MAX_SHARE, min_errors: int = MIN_ERRORS) -> int:
    """How many samples may be broken before a run stops.

    Args:
        num_samples: Samples there are.
        max_share: Share of them that may be broken.
        min_errors: Number that may be broken whatever the share.
    """
    return max(min_errors, int(max_share * num_samples))


class Skips:
    """Which samples were found bad.

    Args:
        num_samples: Samples there are.
        max_share: Share of them that may be bad.
        min_errors: Number that may be bad whatever the share.
        already: Bad ones that were left out before these samples were numbered.
    """

    def __init__(self, num_samples: int, max_share: float, min_errors: int = MIN_ERRORS, already: int = 0):
        self.max_errors = allowed_errors(num_samples + already, max_share, min_errors)
        self._already = already
        # In shared memory: the workers' findings reach every worker and the main process.
        self.bad = torch.zeros(num_samples, dtype=torch.uint8).share_memory_()

    @property
    def num(self) -> int:
        """How many so far."""
        return self._already + int(self.bad.sum())

    @property
    def indices(self) -> list[int]:
        """Those found bad when they were loaded."""
        indices: list[int] = self.bad.nonzero().flatten().tolist()
        return indices

    def add(self, index: int, error: DataError) -> None:
        """Note a bad sample.

        Raises:
            DataError: There are too many.
        """
        if not self.bad[index]:
            self.bad[index] = 1
            logger.warning("sample skipped (%d so far): %s", self.num, error)
        self.check(error)

    def check(self, error: DataError) -> None:
        """Raise DataError when there are too many; `error` is the last one."""
        if self.num > self.max_errors:
            raise DataError(
                f"{self.num} bad samples, more than the {self.max_errors} allowed; the last: {error.reason}",
                file=error.file,
                sample_id=error.sample_id,
            ) from error
