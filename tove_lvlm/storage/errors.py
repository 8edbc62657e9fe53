"""What can be wrong with a file of weights."""

from collections.abc import Iterable

from ..errors import UserError


class WeightsError(UserError):
    """Weights cannot be read or do not fit; the message names the file."""


class MissingWeightsError(WeightsError, FileNotFoundError):
    """Weights, or a file beside them, are not there."""


class PartialWeightsError(MissingWeightsError):
    """Some of the weights are there, and not all."""


def first_names(names: Iterable[str], limit: int = 3) -> str:
    """The first few of some names, for a message."""
    names = sorted(names)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
