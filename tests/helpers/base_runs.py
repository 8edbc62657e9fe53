"""Runs of the base model on a tiny world, and the fixtures for them."""

import json
from pathlib import Path

import pytest
import webdataset
import yaml

from helpers import tiny_towers, training
from helpers.tiny_decoders import make_decoder
from helpers.tiny_lvlm import make_data
from tove_lvlm.recipes.encoder_decoder import FINETUNE, PRETRAIN

STAGES = {stage.name: stage for stage in (PRETRAIN, FINETUNE)}


def make_world(folder: Path) -> Path:
    """Decoder, tower, data and both YAMLs under one folder; outputs go to `folder/out-*`."""
    make_decoder(folder / "decoder")
    make_data(folder / "data", text_only=False)
    statements = [{"image": f"{i}.png", "caption": f"the box is red {i}", "label": i % 2} for i in range(6)]
    (folder / "data" / "vsr.jsonl").write_text("\n".join(map(json.dumps, statements)))
    make_shards(folder / "data")
    tiny_towers.make_tower_yaml(folder / "tower")
    for stage in STAGES:
        (folder / f"{stage}.yaml").write_text(yaml.safe_dump(run_block(folder, stage), sort_keys=False))
    return folder


def make_shards(data: Path) -> None:
    """Six images with captions as two shards of webdataset, `data/shards/0000{0,1}.tar`."""
    (data / "shards").mkdir()
    for shard in range(2):
        with webdataset.TarWriter(str(data / "shards" / f"{shard:05d}.tar")) as writer:
            for number in range(3 * shard, 3 * shard + 3):
                content = (data / "images" / f"{number}.png").read_bytes()
                writer.write({"__key__": f"{number:09d}", "png": content, "txt": f"box number {number}"})


def run_block(folder: Path, stage: str) -> dict:
    """The YAML of a stage as a dict."""
    images = "./data/images"
    mix = [
        {"task": "caption", "files": ["./data/pretrain.json"], "image_folder": images},
        {"task": "vqa", "files": ["./data/finetune.json"], "image_folder": images, "weight": 0.5},
        {"task": "statement", "format": "vsr", "files": ["./data/vsr.jsonl"], "image_folder": images, "weight": 2.0},
        {"task": "caption", "format": "webdataset", "files": ["./data/shards/{00000..00001}.tar"]},
    ]
    run = {
        "model": {"decoder": "./decoder", "vision_tower": "tove", "tower": "./tower/tower.yaml"},
        "data": {"mix": mix, "augment": True},
        "train": {
            "output_dir": str(folder / f"out-{stage}"),
            "deepspeed": None,
            "per_device_train_batch_size": 3,
            "gradient_accumulation_steps": 2,
            "learning_rate": 0.01,
            "fusion_lr": 0.005,
            "max_steps": 6,
            "save_steps": 2,
            "save_total_limit": 2,
            "logging_steps": 1,
            "dataloader_num_workers": 0,
            "seed": 1,
        },
    }
    if stage == "finetune_base":
        run["model"] = {"pretrained": str(folder / "out-pretrain_base")}
        run["data"] = {"mix": mix[:1]}
        run["train"]["trainable"] = "language_model"
    return run


def run(world: Path, stage: str, options: list[str], ranks: int | None = None) -> tuple[int, str]:
    """(exit code, output) of a stage's finished script."""
    return training.finish(training.start(f"{stage}.py", world / f"{stage}.yaml", options, ranks))


# ---- fixtures; a folder's conftest.py imports those that its tests take ----


@pytest.fixture(scope="session")
def shared_base_world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("base_world"))


@pytest.fixture
def base_world(shared_base_world, tmp_path) -> Path:
    """The tiny world with output folders of the test's own."""
    return training.own_world(shared_base_world, tmp_path, STAGES)


@pytest.fixture
def train_base(base_world, one_rank, monkeypatch):
    """`train_base(stage, *options)`: run it here on one rank with plain torch; returns the exit code."""
    monkeypatch.chdir(base_world)
    return lambda stage, *options: training.run_here(STAGES[stage], base_world / f"{stage}.yaml", options)


@pytest.fixture
def make_base_trainer(base_world, train_base):
    """`make_base_trainer(stage, *options)`: a trainer that is built and not yet run."""
    return lambda stage, *options: training.trainer_of(STAGES[stage], base_world / f"{stage}.yaml", options)
