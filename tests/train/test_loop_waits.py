"""No step waits for the device: nothing of ours reads a tensor's value or sends a constant between two log lines."""

import pytest
import torch

from helpers.base_runs import base_world, make_base_trainer, shared_base_world, train_base  # noqa: F401  # fixtures
from helpers.host_waits import HostWaits
from helpers.waits import ALLOWED, waits_of_a_step

OPTIONS = ["train.max_steps=4", "train.logging_steps=99", "train.save_steps=99"]


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_step_of_llava_waits_for_nothing(make_trainer, monkeypatch, stage):
    assert waits_of_a_step(make_trainer(stage, *OPTIONS), monkeypatch) == ALLOWED


def test_a_step_of_the_base_model_waits_for_nothing(make_base_trainer, monkeypatch):  # noqa: F811
    assert waits_of_a_step(make_base_trainer("pretrain_base", *OPTIONS), monkeypatch) == ALLOWED


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_torchs_own_operators_read_and_send_nothing_either(make_trainer, stage):
    """In forward and backward pass, in the code of libraries too; the first step makes constants."""
    trainer = make_trainer(stage, *OPTIONS)
    inner, found = trainer.training_step, []

    def training_step(*args, **kwargs):
        with HostWaits() as waits:
            loss = inner(*args, **kwargs)
        found.append(waits.found)
        return loss

    trainer.training_step = training_step
    trainer.train()
    assert len(found) >= 4
    assert not set().union(*found[len(found) // 4 :])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_forward_and_backward_pass_make_no_synchronisation(make_trainer, stage):
    trainer = make_trainer(stage, *OPTIONS)
    inner, counted = trainer.training_step, []

    def training_step(*args, **kwargs):
        if trainer.state.global_step < 1:
            return inner(*args, **kwargs)
        torch.cuda.set_sync_debug_mode("error")
        try:
            counted.append(trainer.state.global_step)
            return inner(*args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    trainer.training_step = training_step
    trainer.train()
    assert len(counted) == 6
