"""Drawing while a model is trained leaves no trace in it."""

import random
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import TrainerState
from transformers.integrations import TensorBoardCallback

from tove_lvlm.train.pictures import DrawPictures, undisturbed
from tove_lvlm.train.stage import Pictures


class Writer:
    def __init__(self):
        self.images = []

    def add_image(self, name, picture, step, dataformats):
        self.images.append((name, picture.shape, step, dataformats))

    def flush(self):
        pass


@pytest.fixture
def model():
    """Parts in both modes."""
    made = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)))
    made.train()
    made[1][0].eval()
    return made


def modes(model):
    return [module.training for module in model.modules()]


def test_modes_gradients_and_random_states_are_put_back(model):
    before = modes(model)
    states = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())

    def fail():
        with undisturbed(model):
            assert modes(model) == [False] * 5
            assert not torch.is_grad_enabled()
            assert torch.equal(model(torch.ones(1, 2)), model(torch.ones(1, 2)))
            random.random(), np.random.rand(), torch.rand(3)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert modes(model) == before
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("is_main", [True, False])
def test_when_it_is_drawn_and_by_whom(model, is_main):
    writer, alive = Writer(), []
    trainer = SimpleNamespace(
        model=model,
        accelerator=SimpleNamespace(autocast=lambda: torch.autocast("cpu", torch.bfloat16)),
        callback_handler=SimpleNamespace(callbacks=[object(), TensorBoardCallback(writer)]),
        watchdog=SimpleNamespace(alive=alive.append),
        meter=SimpleNamespace(started=time.perf_counter()),
    )
    seen = []

    def draw():
        seen.append((model.training, torch.is_autocast_enabled("cpu")))
        time.sleep(0.01)
        return {"a": np.zeros((2, 3, 3), np.uint8)}

    started, callback = trainer.meter.started, DrawPictures(trainer, Pictures(every=3, draw=draw))
    for step in range(1, 8):
        state = TrainerState(global_step=step, max_steps=7, is_world_process_zero=is_main)
        callback.on_step_end(None, state, None)
    steps = [3, 6, 7] if is_main else []
    assert writer.images == [("a", (2, 3, 3), step, "HWC") for step in steps]
    assert alive == steps
    assert seen == [(False, True)] * len(steps)
    assert model.training
    # The time that it took is not the training's.
    assert trainer.meter.started - started >= 0.01 * len(steps)
