"""The base model through the real `deepspeed` launcher on two CPU ranks: as on one rank, and killed and resumed."""

import os
import signal
import time

import pytest

from helpers import base_runs, tiny_towers, training
from helpers.paths import ROOT
from helpers.tiny_decoders import make_decoder
from helpers.training import losses, metrics, same, weights
from tove_lvlm.train import checkpoint


def options(world, out: str, zero: str, *more: str) -> list[str]:
    return [
        f"train.deepspeed={ROOT}/projects/deepspeed/{zero}.json",
        f"train.output_dir={world}/{out}",
        "data.augment=false",
        *more,
    ]


def test_two_ranks_lose_what_one_rank_does(base_world, train_base):
    """The same samples in the same order: each rank takes half of what one rank takes. Without dropout, which each rank
    draws anew."""
    make_decoder(base_world / "plain", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    tower = tiny_towers.make_tower_yaml(base_world / "plain_tower", ["depth", "shapes"], expert_dropout=0.0)
    same_run = [
        f"model.decoder={base_world}/plain",
        f"model.tower={tower}",
        "train.max_steps=3",
        "train.gradient_accumulation_steps=1",
    ]
    halves = options(base_world, "two", "zero2", "train.per_device_train_batch_size=3")
    code, output = base_runs.run(base_world, "pretrain_base", [*halves, *same_run], ranks=2)
    assert code == 0, output[-3000:]
    whole = ["train.per_device_train_batch_size=6", f"train.output_dir={base_world}/one", "data.augment=false"]
    assert train_base("pretrain_base", *whole, *same_run) == 0
    two, one = losses(base_world / "two"), losses(base_world / "one")
    assert len(two) == 3
    assert two == pytest.approx(one, rel=1e-4)
    assert weights(base_world / "two").keys() == weights(base_world / "one").keys()


@pytest.mark.full
@pytest.mark.parametrize("zero", ["zero2", "zero3"])
def test_killed_and_resumed_is_bit_identical(base_world, zero):
    steps = ["train.max_steps=8", "train.save_steps=2", f"train.bf16={'true' if zero == 'zero3' else 'false'}"]
    code, output = base_runs.run(base_world, "pretrain_base", options(base_world, "whole", zero, *steps), ranks=2)
    assert code == 0, output[-3000:]
    parts = options(base_world, "parts", zero, *steps)
    log = base_world / "log"
    process = training.start("pretrain_base.py", base_world / "pretrain_base.yaml", parts, ranks=2, log=log)
    end = time.monotonic() + 600
    while not checkpoint.checkpoints(base_world / "parts"):
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    assert not (base_world / "parts" / "model.safetensors").exists()
    code, output = base_runs.run(base_world, "pretrain_base", parts, ranks=2)
    assert code == 0, output[-3000:]
    assert "resuming from" in output
    assert metrics(base_world / "parts") == metrics(base_world / "whole")
    assert same(weights(base_world / "parts"), weights(base_world / "whole"))
