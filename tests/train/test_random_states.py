"""Random states go on where they were."""

import random

import numpy as np
import torch

from tove_lvlm.train.random_states import random_states, set_random_states


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_what_is_drawn_after_setting_is_what_would_have_come():
    draw()
    states = random_states()
    expected = [draw(), draw()]
    set_random_states({**states, "meter": None})
    assert [draw(), draw()] == expected


def test_they_are_what_a_checkpoint_can_hold(tmp_path):
    torch.save(random_states(), tmp_path / "states.pt")
    states, expected = torch.load(tmp_path / "states.pt", weights_only=True), draw()
    set_random_states(states)
    assert draw() == expected
