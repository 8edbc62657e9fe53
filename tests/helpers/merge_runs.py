"""Runs of merging inside the test's own process or under the launcher, on the tiny checkpoints."""

from pathlib import Path

import yaml

from helpers import training

START = {
    "deepspeed": None,
    "per_device_train_batch_size": 8,
    "learning_rate": 0.01,
    "max_steps": 6,
    "save_steps": 3,
    "logging_steps": 1,
    "dataloader_num_workers": 0,
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
    from tove_lvlm.recipes.merge import MERGE

    return training.run_here(MERGE, cfg_path, options)


def load_clip(folder: Path):
    """The plain CLIP that a run wrote."""
    from transformers import CLIPVisionModel

    return CLIPVisionModel.from_pretrained(folder).eval()


def launch(cfg_path: Path, options: list[str], ranks: int) -> tuple[int, str]:
    """(exit code, output) of scripts/merge_experts.py under the DeepSpeed launcher."""
    return training.finish(training.start("merge_experts.py", cfg_path, options, ranks))
