"""The one error that a user's data can cause. It names the file and the sample."""

from pathlib import Path

from ..config import UserError


class DataError(UserError):
    """A sample or a data file that cannot be used.

    Attributes:
        reason: what is wrong, without the place.
        file: the JSON file that holds the sample, if known.
        sample_id: the sample's own id, if known.
    """

    def __init__(self, reason: str, *, file: str | Path | None = None, sample_id: str | None = None):
        # A DataLoader worker raises this class anew with its whole traceback as the only argument;
        # a data error is one line for its reader, and the line is the last one.
        if "\nOriginal Traceback" in reason and f"{type(self).__name__}: " in reason:
            reason = reason.rsplit(f"{type(self).__name__}: ", 1)[1].strip()
        self.reason = reason
        self.file = None if file is None else str(file)
        self.sample_id = sample_id
        sample = None if sample_id is None else f"sample {sample_id!r}"
        location = ", ".join(part for part in (self.file, sample) if part is not None)
        super().__init__(f"{location}: {reason}" if location else reason)

    def at(self, *, file: str | Path, sample_id: str | None = None) -> "DataError":
        """The same error with its place; a place already known stays."""
        return DataError(self.reason, file=self.file or file, sample_id=self.sample_id or sample_id)

    def __reduce__(self) -> tuple[object, ...]:
        # The default would hand the rendered message back as the reason and lose the place.
        return _rebuild, (self.reason, self.file, self.sample_id)


def _rebuild(reason: str, file: str | None, sample_id: str | None) -> DataError:
    return DataError(reason, file=file, sample_id=sample_id)
