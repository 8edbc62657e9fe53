"""FSDP2 on two CPU ranks: what one rank learns with plain torch, and going on to the same bits."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers import llava_runs, tiny_towers, training
from tove_lvlm.train import checkpoint

STEPS = 6


@pytest.fixture(scope="module")
def shared(shared_world, tmp_path_factory) -> Path:
    """A world whose tower draws nothing at random, since ranks draw differently."""
    folder = training.own_world(shared_world, tmp_path_factory.mktemp("fsdp"), llava_runs.SCRIPTS)
    tiny_towers.make_tower_yaml(folder / "two", experts=["depth", "shapes"], expert_dropout=0.0)
    return folder


def options(world: Path, out: str, *more: str) -> list[str]:
    return [
        f"train.output_dir={world}/{out}",
        f"train.max_steps={STEPS}",
        f"model.tower={world}/two/tower.yaml",
        "lora.lora_dropout=0.0",
        *more,
    ]


def run(world: Path, out: str, *more: str, stage: str = "finetune", ranks: int | None = 2) -> str:
    fsdp = ["train.fsdp=true"] if ranks else ["train.per_device_train_batch_size=4"]
    script, cfg_path = llava_runs.SCRIPTS[stage], world / f"{stage}.yaml"
    given = options(world, out, *fsdp, *more)
    code, output = training.finish(training.start(script, cfg_path, given, ranks, launcher="torchrun"))
    assert code == 0, output[-3000:]
    return output


@pytest.fixture(scope="module")
def whole(shared) -> Path:
    run(shared, "whole")
    return shared / "whole"


def assert_close(folder: Path, other: Path, name: str = "model.safetensors", atol: float = 2e-5) -> None:
    a, b = load_file(folder / name), load_file(other / name)
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype, key
        torch.testing.assert_close(a[key], b[key], atol=atol, rtol=0, msg=key)


def test_two_ranks_learn_what_one_rank_does(shared, whole):
    run(shared, "one", ranks=None)
    assert training.losses(whole) == pytest.approx(training.losses(shared / "one"), rel=1e-5)
    assert_close(whole, shared / "one")
    names = {path.name for path in whole.iterdir() if not path.name.startswith("checkpoint-")}
    assert names == {path.name for path in (shared / "one").iterdir() if not path.name.startswith("checkpoint-")}
    assert (whole / "config.json").read_text() == (shared / "one" / "config.json").read_text()


def test_resumed_is_bit_identical(shared, whole):
    out, kept = shared / "parts", "checkpoint-4"
    shutil.copytree(whole / kept, out / kept)
    shutil.copy(whole / "metrics.jsonl", out)
    assert {path.name for path in (out / kept).glob("optimizer*")} == {"optimizer-rank-0.pt", "optimizer-rank-1.pt"}
    assert f"resuming from {out / kept}" in run(shared, "parts")
    assert training.metrics(out) == training.metrics(whole)
    assert training.same(load_file(out / "model.safetensors"), load_file(whole / "model.safetensors"))


def test_each_rank_holds_half(shared, whole):
    """Adam's two moments of half of what is trained, in each rank's file."""
    (newest,) = checkpoint.checkpoints(whole)[-1:]
    trained = sum(tensor.numel() for tensor in load_file(newest / "trainable.safetensors").values())
    for rank in range(2):
        state = torch.load(newest / f"optimizer-rank-{rank}.pt", weights_only=True)["state"]
        held = sum(kept["exp_avg"].numel() for kept in state.values())
        assert 0.4 * trained < held < 0.6 * trained


@pytest.mark.full
def test_the_whole_language_model_in_bfloat16(shared):
    more = ["lora.lora_enable=false", "train.bf16=true", "train.gradient_checkpointing=true", "train.chunked_loss=true"]
    run(shared, "bf16", *more)
    run(shared, "bf16-one", *more, ranks=None)
    assert training.losses(shared / "bf16") == pytest.approx(training.losses(shared / "bf16-one"), rel=0.02)
    assert_close(shared / "bf16", shared / "bf16-one", atol=0.05)


@pytest.mark.full
def test_stage_1(shared):
    run(shared, "stage1", stage="pretrain")
    run(shared, "stage1-one", stage="pretrain", ranks=None)
    assert training.losses(shared / "stage1") == pytest.approx(training.losses(shared / "stage1-one"), rel=1e-5)
    assert_close(shared / "stage1", shared / "stage1-one", "projector.safetensors")
