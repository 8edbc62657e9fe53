"""Runs of merging inside the test's own process, on the tiny checkpoints. For tests/surgery/test_merge_*.py."""

import json
from pathlib import Path

import yaml

START = {
    "deepspeed": None,
    "per_device_train_batch_size": 8,
    "learning_rate": 0.01,
    "max_steps": 6,
    "save_steps": 3,
    "logging_steps": 1,
    "seed": 1,
}


def write_yaml(folder: Path, checkpoint: Path, images: Path, **train) -> Path:
    """`merge.yaml` in `folder`, with `out` as its output."""
    block = {
        "model": {"checkpoint": str(checkpoint)},
        "data": {"images": [str(images)]},
        "train": START | {"output_dir": str(folder / "out")} | train,
    }
    path = folder / "merge.yaml"
    path.write_text(yaml.safe_dump(block))
    return path


def run(cfg_path: Path, *options: str) -> int:
    """Exit code of scripts/merge_experts.py, run here."""
    from tove_lvlm.surgery.merge import MergeStage
    from tove_lvlm.train.stages import main

    arguments = ["--cfg-path", str(cfg_path)]
    return main(MergeStage(), [*arguments, "--options", *options] if options else arguments)


def metrics(folder: Path) -> list[dict]:
    """What was logged, without what depends on the clock."""
    timed = ("images_per_s", "peak_memory_gb")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]
