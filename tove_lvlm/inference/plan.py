"""In which order questions are asked: those about one picture while what the model made of it is kept.

Pictures with several questions come in windows, as many at a time as may be kept; the batches of a window are of
similar length, whatever pictures their questions are about. Questions about pictures of their own, or about none, go in
batches of similar length as if nothing were kept.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from .batching import length_sorted


class Window(NamedTuple):
    """Questions that are asked while the same pictures are kept."""

    batches: list[list[int]]
    """Positions of questions."""
    keeps: bool
    """Whether its pictures are kept from batch to batch."""


def plan(pictures: Sequence[Hashable], lengths: Sequence[int], batch_size: int, most: int) -> list[Window]:
    """All questions in batches, the longest in the first window, so that a lack of memory shows early.

    Args:
        pictures: Of each question; None for one about no picture.
        lengths: Of each question's prompt, in tokens.
        batch_size: Questions of a batch, at most.
        most: Pictures that may be kept at a time; 0 for none.
    """
    about: dict[Hashable, list[int]] = {}
    for place, picture in enumerate(pictures):
        about.setdefault(picture, []).append(place)
    kept = [places for picture, places in about.items() if picture is not None and len(places) > 1 and most]
    together = {place for places in kept for place in places}
    windows = [_window([place for place in range(len(pictures)) if place not in together], lengths, batch_size, False)]
    kept.sort(key=lambda places: -max(lengths[place] for place in places))
    for start in range(0, len(kept), most or 1):
        places = [place for group in kept[start : start + most] for place in group]
        windows.append(_window(places, lengths, batch_size, True))
    found = [window for window in windows if window.batches]
    return sorted(found, key=lambda window: -lengths[window.batches[0][0]])


def _window(places: Sequence[int], lengths: Sequence[int], batch_size: int, keeps: bool) -> Window:
    batches = length_sorted([lengths[place] for place in places], batch_size)
    return Window([[places[index] for index in batch] for batch in batches], keeps)
