"""Text about the miniature's scenes: captions, questions with one-word answers, statements.

Nothing in a question predicts its answer. The world is symmetric under every exchange that swaps answers: colours are
exchangeable, shapes are, and x, y and log depth are mirror symmetric. Wherever a question has an order (`left or
right`, `red or blue`) or a wanted answer (is it there or not), a coin of its own decides. Objects are named by an
attribute that no other object of the scene has. What hangs on a few pixels or a few centimetres is not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from .scene import COLORS, IMAGE_SIZE, MAX_OBJECTS, MIN_OBJECTS, SHAPES, Scenes
from .things import (
    DEPTH_MARGIN,
    NEARER_MARGIN,
    PAIR_MARGIN,
    PLACE_MARGIN,
    Dice,
    Thing,
    article,
    separated,
    singular,
    things,
)

_MAX_PER_FAMILY = 32


class Question(NamedTuple):
    """A question with its one-word answer."""

    family: str
    text: str
    answer: str


class Statement(NamedTuple):
    """A sentence about a scene that is true or false."""

    relation: str
    text: str
    label: bool


def captions(scenes: Scenes, i: int, rng: np.random.Generator) -> str:
    """One caption of scene `i`: every object from left to right with its place and distance, then one comparison.

    For example: `a red sphere near at the top left, a blue box far at the bottom right. the blue box is farther than
    the red sphere.`

    Args:
        scenes: The scenes.
        i: Which of them.
        rng: Chooses the pair that is compared and its order.
    """
    objects = sorted(things(scenes, i), key=lambda thing: thing.x)
    parts = [f"{article(t.color)} {t.color} {t.shape} {distance(t)} at the {_place(t)}" for t in objects]
    dice = Dice(rng, 2)
    first, second = dice.pair(objects)
    word = "nearer" if first.nearness > second.nearness else "farther"
    return f"{', '.join(parts)}. the {_name(first)} is {word} than the {_name(second)}."


def questions(scenes: Scenes, i: int, rng: np.random.Generator, per_family: int = 1) -> list[Question]:
    """Questions about scene `i`, in random order and without repetition.

    Args:
        scenes: The scenes.
        i: Which of them.
        rng: Draws objects, orders and the wanted answers.
        per_family: At most so many questions of each family; a family that has none to ask here is left out.

    Raises:
        ValueError: `per_family` is not between 1 and 32.
    """
    if not 1 <= per_family <= _MAX_PER_FAMILY:
        raise ValueError(f"per_family must be between 1 and {_MAX_PER_FAMILY}, got {per_family}")
    objects = things(scenes, i)
    dice = Dice(rng, (len(_FAMILIES) * _DRAWS + 1) * per_family + len(_FAMILIES) * per_family)
    by_text: dict[str, Question] = {}
    for family, ask in _FAMILIES.items():
        for _ in range(per_family):
            drawn = ask(objects, dice)
            if drawn is not None:
                # `left or right` and `right or left` of one object are one question
                words = drawn[0].rstrip("?").replace(",", "").split()
                by_text.setdefault(" ".join(sorted(words)), Question(family, *drawn))
    return dice.shuffled(list(by_text.values()))


def statements(scenes: Scenes, i: int, rng: np.random.Generator, per_relation: int = 1) -> list[Statement]:
    """Statements about scene `i` in the manner of VSR, true and false equally often, in random order.

    Args:
        scenes: The scenes.
        i: Which of them.
        rng: Draws the pair, its order and the relation.
        per_relation: At most so many statements of each kind (side, height, distance, identity).

    Raises:
        ValueError: `per_relation` is not between 1 and 32.
    """
    if not 1 <= per_relation <= _MAX_PER_FAMILY:
        raise ValueError(f"per_relation must be between 1 and {_MAX_PER_FAMILY}, got {per_relation}")
    objects = things(scenes, i)
    dice = Dice(rng, (len(_STATEMENTS) * _DRAWS + 1) * per_relation + len(_STATEMENTS) * per_relation)
    by_text: dict[str, Statement] = {}
    for state in _STATEMENTS:
        for _ in range(per_relation):
            drawn = state(objects, dice)
            if drawn is not None:
                by_text.setdefault(drawn.text, drawn)
    return dice.shuffled(list(by_text.values()))


def is_there(name: str) -> str:
    """The question whether something of that name is in the scene: `red sphere`, `red object`."""
    return f"Is there {article(name)} {name}?"


def corpus() -> Iterator[str]:
    """Sentences that hold every word that this module can write; what the miniature's tokenizer is trained on."""
    for color in COLORS:
        for shape in SHAPES:
            yield f"{article(color)} {color} {shape}"
            yield is_there(f"{color} {shape}")
    for word in ("left", "right", "top", "bottom", "middle", "center", "near", "far", "halfway", "yes", "no"):
        yield f"at the {word}"
    for num in range(MIN_OBJECTS, MAX_OBJECTS + 1):
        yield f"{num} objects"
    yield from _SENTENCES


# ---------------------------------------------------------------------------------------------------------------------
# Words


def _name(thing: Thing) -> str:
    return f"{thing.color} {thing.shape}"


def _third(value: float, low: str, middle: str, high: str, center: float, margin: float) -> str:
    return low if value <= center - margin else high if value >= center + margin else middle


def _place(thing: Thing) -> str:
    half = IMAGE_SIZE / 2
    vertical = _third(thing.y, "top", "middle", "bottom", half, PLACE_MARGIN)
    return f"{vertical} {_third(thing.x, 'left', 'center', 'right', half, PLACE_MARGIN)}"


def distance(thing: Thing) -> str:
    """`near`, `halfway` or `far`."""
    return _third(thing.nearness, "far", "halfway", "near", 0.5, DEPTH_MARGIN)


# ---------------------------------------------------------------------------------------------------------------------
# Draws

_DRAWS = 6  # most uniform numbers that one question takes


# ---------------------------------------------------------------------------------------------------------------------
# Questions: each takes the objects and the dice and gives (text, answer), or None when this scene has none to ask


def _ask_exist(objects: list[Thing], dice: Dice) -> tuple[str, str]:
    present, with_shape = dice.coin(), dice.coin()
    if with_shape:
        names_there = {(t.color, t.shape) for t in objects}
        options = [(c, s) for c in COLORS for s in SHAPES if ((c, s) in names_there) == present]
        name = " ".join(dice.choice(sorted(names_there) if present else options))
    else:
        colors_there = {t.color for t in objects}
        name = dice.choice([c for c in COLORS if (c in colors_there) == present]) + " object"
    return is_there(name), "yes" if present else "no"


def _ask_shape(objects: list[Thing], dice: Dice) -> tuple[str, str] | None:
    named = singular(objects, "color")
    if not named:
        return None
    thing = dice.choice(named)
    return f"What shape is the {thing.color} object?", thing.shape


def _ask_color(objects: list[Thing], dice: Dice) -> tuple[str, str] | None:
    named = singular(objects, "shape")
    if not named:
        return None
    thing = dice.choice(named)
    return f"What color is the {thing.shape}?", thing.color


def _ask_count(objects: list[Thing], dice: Dice) -> tuple[str, str]:
    return "How many objects are there?", str(len(objects))


def _ask_either(
    key: Callable[[Thing], float], center: float, margin: float, low: str, high: str
) -> Callable[[list[Thing], Dice], tuple[str, str] | None]:
    """`Is the red object LOW or HIGH?`, the two words in random order."""

    def ask(objects: list[Thing], dice: Dice) -> tuple[str, str] | None:
        clear = [t for t in singular(objects, "color") if abs(key(t) - center) >= margin]
        if not clear:
            return None
        thing, words = dice.choice(clear), dice.pair([low, high])
        return f"Is the {thing.color} object {words[0]} or {words[1]}?", low if key(thing) < center else high

    return ask


def _ask_which(
    key: Callable[[Thing], float], margin: float, word: str
) -> Callable[[list[Thing], Dice], tuple[str, str] | None]:
    """`Which is WORD, red or blue?`, the answer being the one with the larger key; the two colours in random order."""

    def ask(objects: list[Thing], dice: Dice) -> tuple[str, str] | None:
        pairs = separated(objects, key, margin)
        if not pairs:
            return None
        a, b = dice.pair(list(dice.choice(pairs)))
        return f"Which is {word}, {a.color} or {b.color}?", (a if key(a) > key(b) else b).color

    return ask


_HALF = IMAGE_SIZE / 2
_FAMILIES: dict[str, Callable[[list[Thing], Dice], tuple[str, str] | None]] = {
    "exist": _ask_exist,
    "shape": _ask_shape,
    "color": _ask_color,
    "count": _ask_count,
    "leftright": _ask_either(lambda t: t.x, _HALF, PLACE_MARGIN, "left", "right"),
    "updown": _ask_either(lambda t: t.y, _HALF, PLACE_MARGIN, "top", "bottom"),
    "nearfar": _ask_either(lambda t: t.nearness, 0.5, DEPTH_MARGIN, "far", "near"),
    "rel_left": _ask_which(lambda t: -t.x, PAIR_MARGIN, "further left"),
    "rel_above": _ask_which(lambda t: -t.y, PAIR_MARGIN, "higher"),
    "rel_nearer": _ask_which(lambda t: t.nearness, NEARER_MARGIN, "nearer"),
}
FAMILIES = tuple(_FAMILIES)
"""The question families, in the order of every table."""


# ---------------------------------------------------------------------------------------------------------------------
# Statements


def _state_pair(
    relation: str, key: Callable[[Thing], float], margin: float, more: str, less: str
) -> Callable[[list[Thing], Dice], Statement | None]:
    """`The red object is MORE (or LESS) the blue object.`; words and order are independent coins."""

    def state(objects: list[Thing], dice: Dice) -> Statement | None:
        pairs = separated(objects, key, margin)
        if not pairs:
            return None
        (a, b), says_more = dice.pair(list(dice.choice(pairs))), dice.coin()
        text = f"The {a.color} object is {more if says_more else less} the {b.color} object."
        return Statement(relation, text, (key(a) > key(b)) == says_more)

    return state


def _state_identity(objects: list[Thing], dice: Dice) -> Statement | None:
    """`The red object is a cone.`: the shape is right, or another with equal chance."""
    named = singular(objects, "color")
    if not named:
        return None
    thing, label = dice.choice(named), dice.coin()
    shape = dice.choice([s for s in SHAPES if (s == thing.shape) == label])
    return Statement("identity", f"The {thing.color} object is {article(shape)} {shape}.", label)


_STATEMENTS = (
    _state_pair("side", lambda t: t.x, PAIR_MARGIN, "to the right of", "to the left of"),
    _state_pair("height", lambda t: -t.y, PAIR_MARGIN, "above", "below"),
    _state_pair("distance", lambda t: t.nearness, NEARER_MARGIN, "in front of", "behind"),
    _state_identity,
)
_SENTENCES = (
    "Is the red object left or right?",
    "Is the red object top or bottom?",
    "Is the red object near or far?",
    "What shape is the red object?",
    "What color is the sphere?",
    "How many objects are there?",
    "Which is further left, red or blue?",
    "Which is higher, red or blue?",
    "Which is nearer, red or blue?",
    "Is there a red object?",
    "the red sphere is nearer than the blue box, the blue box is farther than the red sphere.",
    "The red object is to the right of the blue object. The red object is to the left of the blue object.",
    "The red object is above the blue object. The red object is below the blue object.",
    "The red object is in front of the blue object. The red object is behind the blue object.",
    "Describe the scene.",
    "Is it true that the red object is a sphere? true false",
)
