"""Whole runs of merging: LoRA, resuming, what stops one, several ranks."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from helpers import merge_runs
from helpers.paths import ROOT
from helpers.training import metrics, same, weights
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.train import checkpoint

pytestmark = pytest.mark.usefixtures("one_rank")


def test_lora_run_writes_a_plain_clip(checkpoints, images, tmp_path):
    path = merge_runs.write_yaml(tmp_path, checkpoints["tower"], images, max_steps=20)
    with pytest.warns(FutureWarning) as caught:
        assert merge_runs.run(path, "lora.lora_enable=true", "lora.lora_r=4", "merge.token_weight=cls_attention") == 0
    messages = {str(warning.message).partition(" is deprecated")[0] for warning in caught}
    assert {"`lora`", "`merge.token_weight`"} <= messages
    lines = metrics(tmp_path / "out")
    assert lines[-1]["gap"] < lines[0]["gap"]
    held = load_file(checkpoint.checkpoints(tmp_path / "out")[-1] / checkpoint.TRAINABLE)
    assert all(".lora_" in name for name in held)
    after = merge_runs.load_clip(tmp_path / "out" / "clip").state_dict()
    before = open_checkpoint(checkpoints["tower"]).tower.clip.state_dict()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert after.keys() == before.keys()
    assert len(moved) == 2 * 6
    assert all(name.endswith(".weight") and ".layers.2." not in name for name in moved)


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "options",
    [
        ("train.expert_cache=CACHE", "data.horizontal_flip=false"),
        ("lora.lora_enable=true", "lora.lora_dropout=0.2", "train.bf16=true"),
    ],
)
def test_resumed_run_is_bit_identical(checkpoints, images, tmp_path, monkeypatch, options):
    """Stopped after step 3 of 6, between two log lines; flips and LoRA's dropout draw."""
    options = ["data.horizontal_flip=true", "train.logging_steps=2", *options]
    path = merge_runs.write_yaml(tmp_path, checkpoints["tower"], images)
    options = [option.replace("CACHE", f"{tmp_path}/cache") for option in options]
    assert merge_runs.run(path, *options, f"train.output_dir={tmp_path}/whole") == 0
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    inner = checkpoint.save

    def save_and_die(state, record, *args):
        written = inner(state, record, *args)
        if record.trainer_state.global_step == 3:
            raise KeyboardInterrupt
        return written

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        merge_runs.run(path, *options)
    assert not (tmp_path / "out" / "clip").exists()
    monkeypatch.setattr(checkpoint, "save", inner)
    assert merge_runs.run(path, *options) == 0
    assert metrics(tmp_path / "out") == metrics(tmp_path / "whole")
    assert same(weights(tmp_path / "out" / "clip"), weights(tmp_path / "whole" / "clip"))


def test_nan_stops_with_step_and_images(checkpoints, images, tmp_path, monkeypatch, capfd):
    from tove_lvlm.recipes.merge import distiller

    inner, calls = distiller.weighted_mean, []

    def poisoned(*args):
        calls.append(1)
        return inner(*args) * (float("nan") if len(calls) == 5 else 1)

    monkeypatch.setattr(distiller, "weighted_mean", poisoned)
    assert merge_runs.run(merge_runs.write_yaml(tmp_path, checkpoints["tower"], images)) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert "nan at step 5" in last
    assert ".png" in last
    assert not (tmp_path / "out" / "clip").exists()


@pytest.mark.parametrize(
    ("zero", "kind"), [pytest.param("zero2", "tower", marks=pytest.mark.full), ("zero3", "merged")]
)
def test_two_ranks_learn_what_one_rank_does(checkpoints, images, tmp_path, zero, kind):
    """Two ranks of 4 see the batches of one rank of 8; under ZeRO-3 rank 0 then writes a whole LVLM alone."""
    one = merge_runs.write_yaml(tmp_path, checkpoints[kind], images)
    assert merge_runs.run(one) == 0
    options = [
        f"train.deepspeed={ROOT}/projects/deepspeed/{zero}.json",
        "train.per_device_train_batch_size=4",
        f"train.output_dir={tmp_path}/two",
    ]
    code, output = merge_runs.launch(one, options, ranks=2)
    assert code == 0, output[-3000:]
    a, b = (metrics(tmp_path / name) for name in ("out", "two"))
    for left, right in zip(a, b, strict=True):
        assert right["loss"] == pytest.approx(left["loss"], rel=2e-3)
    ours, theirs = weights(tmp_path / "out" / "clip"), weights(tmp_path / "two" / "clip")
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-2, atol=5e-3)
