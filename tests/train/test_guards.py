"""What ends a run: a hang, a loss or weights that are no numbers, a signal; and that the same command goes on."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from helpers.training import metrics, same, weights
from tove_lvlm.recipes.llava import trainer
from tove_lvlm.train import checkpoint
from tove_lvlm.train.guards import StopSignal, Watchdog

HANG = """
import time
from tove_lvlm.train.guards import StopSignal, Watchdog
with Watchdog(timeout=0.4).watching() as watchdog:
    for step in range(1, 4):  # as long as steps finish, nothing happens
        watchdog.alive(step, [f"sample-{step}"])
        time.sleep(0.2)
    time.sleep(30)
"""


def test_a_stall_ends_the_run_and_names_step_and_samples():
    done = subprocess.run([sys.executable, "-c", HANG], capture_output=True, text=True, timeout=120)
    assert done.returncode == Watchdog.EXIT_CODE == 70
    assert "at step 3; samples on this rank: sample-3" in done.stderr
    assert "time.sleep" in done.stderr or "<string>" in done.stderr  # where every thread stood


def test_zero_watches_nothing():
    with Watchdog(timeout=0).watching() as watchdog:
        watchdog.alive(1)


@pytest.mark.parametrize("step", [5, 6])
@pytest.mark.parametrize("micro_batch", [0, 1])
def test_nan_stops_with_step_and_samples(world, train, monkeypatch, capfd, step, micro_batch):
    """Step 6 is one that would be saved, and the last one."""
    inner, calls = trainer.ToVETrainer.loss_of, []

    def poisoned(self, model, inputs, num_items):
        loss, *rest = inner(self, model, inputs, num_items)
        calls.append(self._sample_ids)
        return (loss * float("nan") if len(calls) == 2 * step - 1 + micro_batch else loss, *rest)

    monkeypatch.setattr(trainer.ToVETrainer, "loss_of", poisoned)
    assert train("pretrain", "train.save_steps=2") == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert f"the loss is nan at step {step}; samples on this rank: {', '.join(calls[-2 + micro_batch])}" in last
    assert [path.name for path in checkpoint.checkpoints(world / "out-pretrain")] == ["checkpoint-2", "checkpoint-4"]
    assert not (world / "out-pretrain" / "projector.safetensors").exists()


def test_weights_that_are_no_numbers_are_not_saved(world, train, monkeypatch, capfd):
    step = torch.optim.AdamW.step

    def ruin(self, *args, **kwargs):
        out = step(self, *args, **kwargs)
        ruin.calls += 1
        if ruin.calls == 4:
            self.param_groups[0]["params"][0].data.fill_(float("inf"))
        return out

    ruin.calls = 0
    monkeypatch.setattr(torch.optim.AdamW, "step", ruin)
    assert train("pretrain") == 1
    assert "a weight is not a finite number" in capfd.readouterr().err.splitlines()[-1]
    assert [path.name for path in checkpoint.checkpoints(world / "out-pretrain")] == ["checkpoint-2"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_the_same_command_goes_on(world, train, monkeypatch, signum):
    inner = trainer.ToVETrainer.compute_loss

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 2 and not interrupted.sent:
            interrupted.sent = True
            os.kill(os.getpid(), signum)
            os.kill(os.getpid(), signal.SIGTERM)  # the launcher's, on top of the terminal's
        return inner(self, *args, **kwargs)

    interrupted.sent = False
    monkeypatch.setattr(trainer.ToVETrainer, "compute_loss", interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert train("pretrain", "train.save_steps=50") == 128 + signum
    assert signal.getsignal(signal.SIGINT) is before
    out = world / "out-pretrain"
    assert [path.name for path in checkpoint.checkpoints(out)] == ["checkpoint-3"]
    assert not (out / "projector.safetensors").exists()
    assert train("pretrain", "train.save_steps=50") == 0
    assert train("pretrain", f"train.output_dir={world}/whole", "train.save_steps=50") == 0
    assert metrics(out) == metrics(world / "whole")
    assert same(weights(out), weights(world / "whole"))


def test_a_lost_terminal_stops_the_run_and_nohup_keeps_it_going():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    with StopSignal().watching() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signum == signal.SIGHUP
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal().watching() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signum is None
    finally:
        signal.signal(signal.SIGHUP, before)
