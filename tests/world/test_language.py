"""The world's text: true, balanced, deterministic, and unpredictable without the picture."""

import math
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from tove_lvlm.world import language, scene

NUM = 2000
CHANCE = {"exist": 1 / 2, "shape": 1 / 4, "color": 1 / 6, "count": 1 / 3, "leftright": 1 / 2, "updown": 1 / 2}
CHANCE |= {"nearfar": 1 / 2, "rel_left": 1 / 6, "rel_above": 1 / 6, "rel_nearer": 1 / 6}


@pytest.fixture(scope="module")
def scenes():
    return scene.sample(scene.split_seeds("heldout", NUM))


@pytest.fixture(scope="module")
def asked(scenes):
    """(scene index, question) of every held-out scene."""
    return [(i, q) for i in range(NUM) for q in language.questions(scenes, i, np.random.default_rng(i), per_family=2)]


def _look_up(scenes, i, color=None, shape=None):
    """Slots of the objects that fit, straight from the arrays."""
    num = scenes.num_objects[i]
    fits = np.ones(num, bool)
    if color is not None:
        fits &= scenes.color[i, :num] == scene.COLORS.index(color)
    if shape is not None:
        fits &= scenes.shape[i, :num] == scene.SHAPES.index(shape)
    return np.flatnonzero(fits)


def _only(scenes, i, **what):
    slots = _look_up(scenes, i, **what)
    assert len(slots) == 1, f"scene {i}: {what} fits {len(slots)} objects"
    return slots[0]


def _read(scenes, i, text):
    """The answer to a question, read from the arrays by rules written here once more."""
    middle, far = scene.IMAGE_SIZE / 2, math.sqrt(scene.DEPTH_RANGE[0] * scene.DEPTH_RANGE[1])
    if found := re.fullmatch(r"Is there an? (\w+) (\w+)\?", text):
        shape = None if found[2] == "object" else found[2]
        return "yes" if len(_look_up(scenes, i, color=found[1], shape=shape)) else "no"
    if found := re.fullmatch(r"What shape is the (\w+) object\?", text):
        return scene.SHAPES[scenes.shape[i, _only(scenes, i, color=found[1])]]
    if found := re.fullmatch(r"What color is the (\w+)\?", text):
        return scene.COLORS[scenes.color[i, _only(scenes, i, shape=found[1])]]
    if text == "How many objects are there?":
        return str(scenes.num_objects[i])
    if found := re.fullmatch(r"Is the (\w+) object (\w+) or (\w+)\?", text):
        slot = _only(scenes, i, color=found[1])
        options = {
            frozenset({"left", "right"}): "left" if scenes.x[i, slot] < middle else "right",
            frozenset({"top", "bottom"}): "top" if scenes.y[i, slot] < middle else "bottom",
            frozenset({"near", "far"}): "near" if scenes.depth[i, slot] < far else "far",
        }
        return options[frozenset({found[2], found[3]})]
    found = re.fullmatch(r"Which is (further left|higher|nearer), (\w+) or (\w+)\?", text)
    value = {"further left": scenes.x, "higher": scenes.y, "nearer": scenes.depth}[found[1]]
    first, second = (value[i, _only(scenes, i, color=found[k])] for k in (2, 3))
    return found[2] if first < second else found[3]


def test_every_answer_is_what_the_arrays_say(scenes, asked):
    for i, question in asked:
        assert _read(scenes, i, question.text) == question.answer, (i, question)
    assert {question.family for _, question in asked} == set(language.FAMILIES) == set(CHANCE)


def test_close_calls_are_not_asked(scenes, asked):
    """Margins hold: no answer hangs on a pixel or on a few centimetres."""
    log_range = math.log(scene.DEPTH_RANGE[1] / scene.DEPTH_RANGE[0])
    for i, question in asked:
        colors = [word for word in re.findall(r"\w+", question.text) if word in scene.COLORS]
        slots = [_only(scenes, i, color=color) for color in colors if question.family not in ("exist", "color")]
        x, y, depth = scenes.x[i, slots], scenes.y[i, slots], scenes.depth[i, slots]
        match question.family:
            case "leftright":
                assert abs(x[0] - scene.IMAGE_SIZE / 2) >= language.PLACE_MARGIN
            case "updown":
                assert abs(y[0] - scene.IMAGE_SIZE / 2) >= language.PLACE_MARGIN
            case "nearfar":
                off = abs(math.log(depth[0]) - sum(map(math.log, scene.DEPTH_RANGE)) / 2) / log_range
                assert off >= language.DEPTH_MARGIN - 1e-9
            case "rel_left":
                assert abs(x[0] - x[1]) >= language.PAIR_MARGIN
            case "rel_above":
                assert abs(y[0] - y[1]) >= language.PAIR_MARGIN
            case "rel_nearer":
                assert abs(math.log(depth[0] / depth[1])) / log_range >= language.NEARER_MARGIN - 1e-9


def test_the_answers_are_balanced(asked):
    for family, chance in CHANCE.items():
        answers = Counter(question.answer for _, question in asked if question.family == family)
        num = answers.total()
        assert num > 1000, family
        spread = 4 * math.sqrt(chance * (1 - chance) / num) + 0.01  # 0.01: the split by content is not exactly even
        assert abs(answers.most_common(1)[0][1] / num - chance) < spread, (family, answers)
        assert len(answers) == round(1 / chance)


def test_the_text_alone_answers_nothing(asked):
    """The best guess that half the scenes teach, per question text, is no better than chance on the other half."""
    tables = defaultdict(Counter)
    for i, question in asked:
        if i % 2:
            tables[question.text][question.answer] += 1
    hits = defaultdict(list)
    for i, question in asked:
        if i % 2 == 0 and tables[question.text]:
            hits[question.family].append(tables[question.text].most_common(1)[0][0] == question.answer)
    for family, found in hits.items():
        # of the two colours that a comparison names one is right, so its chance is one half
        chance = 0.5 if family.startswith("rel_") else CHANCE[family]
        assert np.mean(found) < chance + 4 * math.sqrt(chance * (1 - chance) / len(found)), (family, np.mean(found))


def test_the_order_of_the_words_tells_nothing(asked):
    """Which of two offered words is right has no information on the answer: mutual information about 0 bits."""
    for family in ("leftright", "updown", "nearfar", "rel_left", "rel_above", "rel_nearer"):
        first = [q.answer == re.search(r"(\w+) or \w+\?$", q.text)[1] for _, q in asked if q.family == family]
        share = np.mean(first)
        information = 1 + share * math.log2(share) + (1 - share) * math.log2(1 - share)
        assert information < 0.003, (family, share)


def test_one_scene_and_one_generator_give_one_text(scenes):
    other = scene.sample(scenes.seed[5:9])
    for k in range(4):
        for write in (language.questions, language.captions, language.statements):
            text = write(scenes, 5 + k, np.random.default_rng(3))
            assert text == write(other, k, np.random.default_rng(3)), "text must not depend on the batch"
    assert language.questions(scenes, 5, np.random.default_rng(3)) != language.questions(
        scenes, 5, np.random.default_rng(4)
    )


def test_questions_are_not_repeated_and_at_most_so_many_per_family(scenes):
    for i in range(100):
        asked = language.questions(scenes, i, np.random.default_rng(i), per_family=3)
        assert max(Counter(question.family for question in asked).values()) <= 3
        meanings = [tuple(sorted(re.findall(r"\w+", question.text))) for question in asked]
        assert len(set(meanings)) == len(meanings)


@pytest.mark.parametrize("count", [0, -1, 33])
def test_unreasonable_counts_are_refused(scenes, count):
    with pytest.raises(ValueError, match="between 1 and 32"):
        language.questions(scenes, 0, np.random.default_rng(0), per_family=count)
    with pytest.raises(ValueError, match="between 1 and 32"):
        language.statements(scenes, 0, np.random.default_rng(0), per_relation=count)


def test_captions_name_every_object_with_place_and_distance(scenes):
    for i in range(300):
        listed, compared = language.captions(scenes, i, np.random.default_rng(i)).split(". ")
        parts = listed.split(", ")
        assert len(parts) == scenes.num_objects[i]
        left_to_right = np.argsort(scenes.x[i, : len(parts)], kind="stable")
        for part, slot in zip(parts, left_to_right, strict=True):
            color, shape, distance, vertical, side = re.fullmatch(
                r"an? (\w+) (\w+) (near|far|halfway) at the (top|middle|bottom) (left|center|right)", part
            ).groups()
            assert _only(scenes, i, color=color, shape=shape) == slot
            assert (distance == "near") <= (scenes.depth[i, slot] < scene.DEPTH_SPLIT) <= (distance != "far")
            assert (side == "left") <= (scenes.x[i, slot] < 32) <= (side != "right")
            assert (vertical == "top") <= (scenes.y[i, slot] < 32) <= (vertical != "bottom")
        color_a, shape_a, word, color_b, shape_b = re.fullmatch(
            r"the (\w+) (\w+) is (nearer|farther) than the (\w+) (\w+)\.", compared
        ).groups()
        a, b = _only(scenes, i, color=color_a, shape=shape_a), _only(scenes, i, color=color_b, shape=shape_b)
        assert (scenes.depth[i, a] < scenes.depth[i, b]) == (word == "nearer")


def test_statements_are_true_or_false_as_they_say_and_balanced(scenes):
    said = [(i, s) for i in range(NUM) for s in language.statements(scenes, i, np.random.default_rng(i))]
    signs = {"to the left of": (scenes.x, 1), "to the right of": (scenes.x, -1), "above": (scenes.y, 1)}
    signs |= {"below": (scenes.y, -1), "in front of": (scenes.depth, 1), "behind": (scenes.depth, -1)}
    tables = defaultdict(list)
    for i, statement in said:
        if found := re.fullmatch(r"The (\w+) object is an? (\w+)\.", statement.text):
            truth = bool(len(_look_up(scenes, i, color=found[1], shape=found[2])))
            word = found[2]
        else:
            color_a, word, color_b = re.fullmatch(
                r"The (\w+) object is (.+) the (\w+) object\.", statement.text
            ).groups()
            value, sign = signs[word]
            a, b = _only(scenes, i, color=color_a), _only(scenes, i, color=color_b)
            truth = bool(sign * (value[i, b] - value[i, a]) > 0)
        assert truth == statement.label, (i, statement)
        tables[word].append(truth)
    assert set(tables) == {*signs, *scene.SHAPES}
    for word, truths in tables.items():
        assert abs(np.mean(truths) - 0.5) < 4 * 0.5 / math.sqrt(len(truths)), (word, np.mean(truths))
