"""Crops and flips: which texts forbid a flip, and that a draw depends on its seed alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from tove_lvlm.data.augment import SCALE, augment, names_a_side


@pytest.mark.parametrize(
    "text",
    ["a ball left of a box", "the right-hand lane", "the Rightmost one", "facing west", 'a sign that says "stop"'],
)
def test_texts_that_a_mirror_makes_wrong(text):
    assert names_a_side(text)


@pytest.mark.parametrize("text", ["a bright ball", "a ball above a box", "an upright piano", "frightened birds", ""])
def test_texts_that_it_does_not(text):
    assert not names_a_side(text)


def picture() -> Image.Image:
    columns = np.tile(np.arange(64, dtype=np.uint8) * 3, (48, 1))
    rows = np.tile(np.arange(48, dtype=np.uint8)[:, None] * 4, (1, 64))
    return Image.fromarray(np.stack([columns, rows, columns], -1))


def test_half_are_mirrored_where_the_text_allows_it_and_none_where_not():
    def mirrored(text):
        crops = [np.asarray(augment(picture(), text, 1, 0, index))[:, :, 0].astype(int) for index in range(200)]
        return sum(bool(crop[0, 0] > crop[0, -1]) for crop in crops)

    assert 70 < mirrored("a red ball") < 130
    assert mirrored("a ball left of a box") == 0


def test_crops_have_the_scale():
    areas = [np.prod(augment(picture(), "left", 1, 0, index).size) / (64 * 48) for index in range(200)]
    assert SCALE[0] - 0.05 < min(areas) < 0.6
    assert 0.9 < max(areas) <= 1


def test_a_draw_depends_on_its_seed_and_leaves_torch_alone():
    state = torch.get_rng_state()
    first = np.asarray(augment(picture(), "a", 1, 2, 3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(9)
    assert np.array_equal(np.asarray(augment(picture(), "a", 1, 2, 3)), first)
    others = [np.asarray(augment(picture(), "a", *seed)) for seed in ((1, 2, 4), (1, 3, 3), (2, 2, 3))]
    assert not any(other.shape == first.shape and np.array_equal(other, first) for other in others)
