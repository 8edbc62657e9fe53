"""Checkpoints of a run: complete, few, resumed bit for bit, and never half written."""

import errno
import json
import os
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from helpers.tiny_towers import hashes
from helpers.training import metrics, same, weights
from tove_lvlm.config import ConfigError
from tove_lvlm.storage import locks
from tove_lvlm.train import checkpoint, manifest

FILES = ("trainable.safetensors", "scheduler.pt", "rank_0.pt")


def test_resumed_run_is_bit_identical(world, train, monkeypatch):
    """Stopped after step 3 of 6, between two log lines and inside an epoch, with LoRA and expert dropout drawing."""
    options = ["train.logging_steps=2", "train.save_steps=3", "train.per_device_train_batch_size=3"]
    assert train("finetune", *options, f"train.output_dir={world}/whole") == 0
    inner = checkpoint.save

    def save_and_die(state, record, *args):
        path = inner(state, record, *args)
        if record.trainer_state.global_step == 3:
            raise KeyboardInterrupt
        return path

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        train("finetune", *options, f"train.output_dir={world}/parts")
    monkeypatch.setattr(checkpoint, "save", inner)
    assert not (world / "parts" / "model.safetensors").exists()
    assert train("finetune", *options, f"train.output_dir={world}/parts") == 0
    assert metrics(world / "parts") == metrics(world / "whole")
    assert same(weights(world / "parts"), weights(world / "whole"))
    # Once more when all is done: no step is added, the same files come out.
    assert train("finetune", *options, f"train.output_dir={world}/parts") == 0
    assert metrics(world / "parts") == metrics(world / "whole")
    assert same(weights(world / "parts"), weights(world / "whole"))


def test_checkpoints_are_complete_and_few(world, train):
    assert train("finetune") == 0
    out = world / "out-finetune"
    found = checkpoint.checkpoints(out)
    assert [path.name for path in found] == ["checkpoint-4", "checkpoint-6"]  # save_total_limit 2
    assert not [p.name for p in out.iterdir() if p.name.startswith(".")]
    held = load_file(found[-1] / "trainable.safetensors")
    kinds = {"lora_A", "lora_B", "multi_modal_projector", "tove_fusion"}
    assert all(any(kind in name for name in held) for kind in kinds)
    assert not any("clip" in name or "embed_tokens" in name for name in held)
    state = torch.load(found[-1] / "optimizer.pt", weights_only=True)["state"]
    assert len(state) == len(held)


def test_checkpoint_cut_short_is_passed_over(world, train, caplog):
    assert train("pretrain") == 0
    before = weights(world / "out-pretrain")
    newest = checkpoint.checkpoints(world / "out-pretrain")[-1]
    with open(newest / "optimizer.pt", "r+b") as file:
        file.truncate(100)
    assert checkpoint.checkpoints(world / "out-pretrain")[-1].name == "checkpoint-4"
    assert train("pretrain") == 0  # goes on from step 4
    assert same(weights(world / "out-pretrain"), before)


@pytest.mark.parametrize(
    "name",
    ["optimizer.pt", *(pytest.param(f, marks=pytest.mark.full) for f in FILES)],
)
def test_damage_that_keeps_the_size_is_passed_over_too(world, train, capfd, name):
    assert train("pretrain", "train.max_steps=4") == 0
    out = world / "out-pretrain"
    before = weights(out)
    with open(out / "checkpoint-4" / name, "r+b") as file:
        file.seek(-40, 2)
        byte = file.read(1)
        file.seek(-40, 2)
        file.write(bytes([byte[0] ^ 1]))
    assert train("pretrain", "train.max_steps=4") == 0
    told = capfd.readouterr().err
    assert f"checkpoint-4 is damaged and is passed over: {name} has another checksum" in told
    assert f"resuming from {out / 'checkpoint-2'}" in told
    assert same(weights(out), before)


def test_when_all_are_damaged_nothing_starts_over_by_itself(world, train, capfd):
    assert train("pretrain", "train.max_steps=2") == 0
    out = world / "out-pretrain"
    (out / "checkpoint-2" / "complete.json").write_text("[]")
    before = hashes(out)
    assert train("pretrain", "train.max_steps=2") == 2
    assert "all 1 checkpoints are damaged (checkpoint-2: complete.json cannot be read" in capfd.readouterr().err
    assert hashes(out) == before
    assert train("pretrain", "train.max_steps=2", "train.resume=false") == 0
    assert (out / "superseded-1" / "checkpoint-2").is_dir()


def test_a_refused_resume_changes_nothing(world, train, capfd):
    assert train("pretrain", "train.max_steps=2") == 0
    out = world / "out-pretrain"
    (out / ".writing-checkpoint-4").mkdir()
    (out / ".writing-checkpoint-4" / "half").write_text("half")
    before = hashes(out)
    assert train("pretrain", "train.max_steps=4", "train.seed=5") == 2
    assert "`train.seed` was 1, is 5" in capfd.readouterr().err
    with locks.lock_folder(out):
        locked = hashes(out)
        assert train("pretrain", "train.max_steps=4") == 2
        assert hashes(out) == locked
    assert "is being written by this process" in capfd.readouterr().err
    assert hashes(out) == before


def test_a_refused_start_leaves_no_folder(world, train, capfd):
    assert train("pretrain", "data.train=[./data/finetune.json]", "model.llm=./tower") == 2
    assert capfd.readouterr().err
    assert not (world / "out-pretrain").exists()


def test_leftovers_of_a_kill_are_cleared(world, train):
    out = world / "out-pretrain"
    (out / ".writing-checkpoint-2").mkdir(parents=True)
    (out / ".writing-checkpoint-2" / "optimizer.pt").write_bytes(b"half")
    assert train("pretrain", "train.max_steps=2") == 0
    assert not [p.name for p in out.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.yaml", "trainer_state.json"])
def test_a_run_that_dies_over_a_file_leaves_the_old_one(world, train, monkeypatch, name):
    assert train("pretrain", "train.max_steps=4") == 0
    out = world / "out-pretrain"
    before = (out / name).read_bytes()
    replace = os.replace

    def dies(source, target) -> None:
        if target == out / name:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        train("pretrain", "train.max_steps=4")
    assert (out / name).read_bytes() == before


def test_one_checkpoint_too_many_of_a_killed_run_goes_at_the_end(world, train, monkeypatch):
    def dies(root, limit) -> None:
        if (root / "checkpoint-4").exists():
            raise KeyboardInterrupt
        rotate(root, limit)

    rotate = checkpoint.rotate
    monkeypatch.setattr(checkpoint, "rotate", dies)
    keys = ("train.max_steps=4", "train.save_total_limit=1")
    with pytest.raises(KeyboardInterrupt):
        train("pretrain", *keys)
    monkeypatch.setattr(checkpoint, "rotate", rotate)
    assert len(checkpoint.checkpoints(world / "out-pretrain")) == 2
    assert train("pretrain", *keys) == 0
    assert [path.name for path in checkpoint.checkpoints(world / "out-pretrain")] == ["checkpoint-4"]


def test_resume_false_starts_over_and_keeps_the_old_ones(world, train):
    assert train("pretrain", "train.max_steps=2") == 0
    assert train("pretrain", "train.max_steps=2", "train.seed=9", "train.resume=false") == 0
    out = world / "out-pretrain"
    assert (out / "superseded-1" / "checkpoint-2" / manifest.MANIFEST).is_file()
    assert [line["step"] for line in metrics(out)] == [1, 2]
    assert manifest.read_meta(out / "checkpoint-2")["identity"]["train.seed"] == 9


def test_a_key_that_the_checkpoint_is_too_old_to_have(tmp_path):
    listed = {"format": manifest.FORMAT, "identity": {"stage": "x"}, "files": dict.fromkeys(FILES, 0)}
    (tmp_path / manifest.MANIFEST).write_text(json.dumps(listed))
    before = {"tower.transfer": "separate"}
    checkpoint.check_continuity(tmp_path, {"stage": "x", "tower.transfer": "separate"}, before)
    with pytest.raises(ConfigError, match=r"`tower.transfer` was separate, is shared_out; give the old value"):
        checkpoint.check_continuity(tmp_path, {"stage": "x", "tower.transfer": "shared_out"}, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fusion": {"stem_width": 16, "transfer": "separate"}}, "`tower.transfer` was shared_out, is separate"),
        ({"expert_resample": "bilinear"}, "`tower.expert_resample` was bicubic, is bilinear"),
    ],
)
def test_a_run_does_not_go_on_with_a_tower_that_computes_otherwise(world, train, capfd, change, message):
    real = (world / "tower").resolve()
    (world / "tower").unlink()
    shutil.copytree(real, world / "tower")
    assert train("pretrain", "train.max_steps=2") == 0
    path = world / "tower" / "tower.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    assert train("pretrain", "train.max_steps=4") == 2
    assert message in capfd.readouterr().err


def test_full_disk_leaves_the_previous_checkpoint(world, train, monkeypatch, capfd):
    inner = torch.save

    def full(value, path, *args, **kwargs):
        if "checkpoint-4" in str(path) and "optimizer" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return inner(value, path, *args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    assert train("pretrain") == 1
    last = capfd.readouterr().err.splitlines()[-1]
    out = world / "out-pretrain"
    assert "step 4" in last
    assert "No space left" in last
    assert f"{out / 'checkpoint-2'}" in last
    assert [path.name for path in checkpoint.checkpoints(out)] == ["checkpoint-2"]
    assert not (out / ".writing-checkpoint-4").exists()
    monkeypatch.setattr(torch, "save", inner)
    assert train("pretrain") == 0
    assert train("pretrain", f"train.output_dir={world}/clean") == 0
    assert same(weights(out), weights(world / "clean"))
