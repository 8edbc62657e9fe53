"""Runs of LLaVA's two stages on a tiny world, and the fixtures for them."""

from pathlib import Path

import pytest
import yaml

from helpers import tiny_towers, training
from helpers.tiny_lvlm import make_data, make_llm
from tove_lvlm.recipes.llava import FINETUNE, PRETRAIN

STAGES = {stage.name: stage for stage in (PRETRAIN, FINETUNE)}
SCRIPTS = {"pretrain": "pretrain_projector.py", "finetune": "finetune_vicuna.py"}


def make_world(folder: Path) -> Path:
    """LLM, tower, data and both YAMLs under one folder; outputs go to `folder/out-*`."""
    make_llm(folder / "llm")
    make_data(folder / "data")
    tiny_towers.make_tower_yaml(folder / "tower")
    for stage in SCRIPTS:
        (folder / f"{stage}.yaml").write_text(yaml.safe_dump(run_block(folder, stage), sort_keys=False))
    return folder


def run_block(folder: Path, stage: str) -> dict:
    """The YAML of a stage as a dict."""
    run = {
        "model": {"llm": "./llm", "vision_tower": "tove", "tower": "./tower/tower.yaml"},
        "data": {"train": [f"./data/{stage}.json"], "image_folder": "./data/images"},
        "train": {
            "output_dir": str(folder / f"out-{stage}"),
            "deepspeed": None,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "learning_rate": 0.01,
            "mm_projector_lr": 0.005,
            "max_steps": 6,
            "model_max_length": 200,
            "save_steps": 2,
            "save_total_limit": 2,
            "logging_steps": 1,
            "dataloader_num_workers": 0,
            "weight_decay": 0.01,
            "seed": 1,
        },
    }
    if stage == "finetune":
        run["lora"] = {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.1}
        run["train"]["save_merged"] = True
    return run


def start(world: Path, stage: str, options: list[str], ranks: int | None = None, log: Path | None = None):
    """Start a stage's script on a world: by the DeepSpeed launcher with `ranks`, or by plain python when None."""
    return training.start(SCRIPTS[stage], world / f"{stage}.yaml", options, ranks, log)


def run(world: Path, stage: str, options: list[str], ranks: int | None = None) -> tuple[int, str]:
    """(exit code, output) of a stage's finished script."""
    return training.finish(start(world, stage, options, ranks))


# ---- fixtures; a folder's conftest.py imports those that its tests take ----


@pytest.fixture(scope="session")
def shared_world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(shared_world, tmp_path) -> Path:
    """The tiny world with output folders of the test's own."""
    return training.own_world(shared_world, tmp_path, SCRIPTS)


@pytest.fixture
def train(world, one_rank, monkeypatch):
    """`train(stage, *options)`: run it here on one rank with plain torch; returns the exit code."""
    monkeypatch.chdir(world)
    return lambda stage, *options: training.run_here(STAGES[stage], world / f"{stage}.yaml", options)


@pytest.fixture
def make_trainer(world, train):
    """`make_trainer(stage, *options)`: a trainer that is built and not yet run."""
    return lambda stage, *options: training.trainer_of(STAGES[stage], world / f"{stage}.yaml", options)
