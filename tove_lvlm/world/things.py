"""The objects of a scene in words and numbers, and the draws that text about them takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from .scene import COLORS, DEPTH_RANGE, SHAPES, Scenes

PLACE_MARGIN = 4.0
"""Pixels that a centre is away from the picture's middle line wherever text says left, right, top or bottom of it."""
PAIR_MARGIN = 8.0
"""Pixels between two centres wherever text compares them."""
DEPTH_MARGIN = 0.08
"""Share of the log depth range that an object is away from its middle wherever text says near or far."""
NEARER_MARGIN = 0.14
"""Share of the log depth range between two objects wherever text compares their distance."""


@dataclasses.dataclass(frozen=True, slots=True)
class Thing:
    """One object in words and numbers: x, y in pixels (y down), nearness 0 (farthest possible) to 1 (nearest)."""

    color: str
    shape: str
    x: float
    y: float
    nearness: float


def things(scenes: Scenes, i: int) -> list[Thing]:
    """The objects of scene `i`, in the order of the arrays."""
    num = int(scenes.num_objects[i])
    near, far = math.log(DEPTH_RANGE[0]), math.log(DEPTH_RANGE[1])
    columns = (getattr(scenes, name)[i, :num].tolist() for name in ("color", "shape", "x", "y", "depth"))
    return [
        Thing(COLORS[color], SHAPES[shape], x, y, (far - math.log(depth)) / (far - near))
        for color, shape, x, y, depth in zip(*columns, strict=True)
    ]


def article(word: str) -> str:
    """`a` or `an` before a word."""
    return "an" if word[0] in "aeiou" else "a"


class Dice:
    """Uniform numbers drawn at once: the generator advances by the same amount whatever the scene holds."""

    def __init__(self, rng: np.random.Generator, num: int):
        self._values = iter(rng.random(num).tolist())

    def coin(self) -> bool:
        """True or false with equal chance."""
        return next(self._values) < 0.5

    def choice(self, options: list):
        """One of the options, all equally likely."""
        return options[int(next(self._values) * len(options))]

    def pair(self, options: list) -> tuple:
        """Two different ones of the options, in random order."""
        first = int(next(self._values) * len(options))
        second = int(next(self._values) * (len(options) - 1))
        return options[first], options[second + (second >= first)]

    def shuffled(self, items: list) -> list:
        """The items in random order; the list itself is changed."""
        for last in range(len(items) - 1, 0, -1):
            other = int(next(self._values) * (last + 1))
            items[last], items[other] = items[other], items[last]
        return items


def singular(objects: list[Thing], attribute: str) -> list[Thing]:
    """Objects that share `attribute` with no other."""
    values = [getattr(thing, attribute) for thing in objects]
    return [thing for thing, value in zip(objects, values, strict=True) if values.count(value) == 1]


def separated(objects: list[Thing], key: Callable[[Thing], float], margin: float) -> list[tuple[Thing, Thing]]:
    """Pairs of objects of singular colour whose keys differ by the margin."""
    named = singular(objects, "color")
    pairs = [(a, b) for k, a in enumerate(named) for b in named[k + 1 :]]
    return [(a, b) for a, b in pairs if abs(key(a) - key(b)) >= margin]
