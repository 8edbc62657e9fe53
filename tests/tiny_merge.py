"""Runs of merging inside the test's own process, on the tiny checkpoints. For tests/surgery/test_merge_*.py."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml
from tiny_lvlm import ROOT, environment

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
    from tove_lvlm.recipes.merge import MERGE
    from tove_lvlm.train.launch import main

    arguments = ["--cfg-path", str(cfg_path)]
    return main(MERGE, [*arguments, "--options", *options] if options else arguments)


def launch(cfg_path: Path, options: list[str], ranks: int, timeout: float = 1500) -> tuple[int, str]:
    """(exit code, output) of scripts/merge_experts.py under the DeepSpeed launcher; no rank outlives it."""
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", str(ranks)]
    command += ["--master_port", str(20000 + os.getpid() % 20000), str(ROOT / "scripts" / "merge_experts.py")]
    process = subprocess.Popen(
        [*command, "--cfg-path", str(cfg_path), "--options", *options],
        cwd=cfg_path.parent,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


def metrics(folder: Path) -> list[dict]:
    """What was logged, without what depends on the clock."""
    timed = ("images_per_s", "peak_memory_gb")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]
