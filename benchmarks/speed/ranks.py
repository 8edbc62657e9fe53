"""Stage 2 on one and two ranks of this machine, by DeepSpeed's launcher: what a step takes.

On a CPU the ranks talk by gloo and share cores and memory, so the figures say that the machinery works and what it
costs, and nothing about GPUs.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from speed.rounds import spread
from speed.world import ROOT, write_world
from tove_lvlm.storage import load_json

RUN = Path(__file__).parent / "run.py"


def measure(
    folder: Path, size: str, settings: Sequence[tuple[str, int]], batch_size: int, steps: int, rounds: int
) -> dict[str, Any]:
    """Figures of each setting, by `ZERO, RANKS`.

    Args:
        folder: For the files of the runs.
        size: Of `world.SIZES`.
        settings: Name of a DeepSpeed JSON of projects/deepspeed and number of ranks; each is run once a round, in the
            opposite order in the next one.
        batch_size: Rows of a rank and step.
        steps: Timed steps of a run, after one to warm up.
        rounds: How often each is run.
    """
    most = max(ranks for _, ranks in settings)
    run = write_world(folder, size, most * (steps + 1), batch_size)
    run["train"] |= {"max_steps": steps + 1, "logging_steps": steps + 1, "group_by_modality_length": True}
    found: dict[tuple[str, int], list[list[dict[str, Any]]]] = {setting: [] for setting in settings}
    for number in range(rounds):
        for zero, ranks in settings[:: -1 if number % 2 else 1]:
            found[zero, ranks].append(launch(folder, run, zero, ranks))
            print(f"round {number + 1} of {rounds}: {zero}, {ranks} ranks", flush=True)
    return {f"{zero}, {ranks}": summary(runs, batch_size) for (zero, ranks), runs in found.items()}


def launch(folder: Path, run: dict[str, Any], zero: str, ranks: int) -> list[dict[str, Any]]:
    """Each rank's figures of one run.

    Args:
        folder: Holds the world.
        run: The run's configuration.
        zero: Name of a DeepSpeed JSON.
        ranks: How many the launcher starts.
    """
    import torch

    with tempfile.TemporaryDirectory(dir=folder) as output:
        train = {"output_dir": str(Path(output) / "out"), "deepspeed": f"{ROOT}/projects/deepspeed/{zero}.json"}
        cfg_path = Path(output) / "run.yaml"
        cfg_path.write_text(yaml.safe_dump(run | {"train": run["train"] | train}), encoding="utf-8")
        launcher = [
            "-m",
            "deepspeed.launcher.runner",
            "--num_accelerators",
            str(ranks),
            "--master_port",
            str(free_port()),
        ]
        command = [*launcher, str(RUN), str(cfg_path), "tove", "--own-order", "--output", output]
        environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        if not torch.cuda.is_available():
            environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, cwd=folder, env=os.environ | environment
        )
        if done.returncode:
            raise SystemExit(f"{zero}, {ranks} ranks ended with {done.returncode}:\n{done.stderr[-3000:]}")
        return [load_json(Path(output) / f"rank-{rank}.json") for rank in range(ranks)]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def summary(runs: Sequence[Sequence[dict[str, Any]]], batch_size: int) -> dict[str, Any]:
    """Seconds of a step and rows per second: medians over all steps of all rounds, with their range.

    Args:
        runs: Each round's figures of each rank.
        batch_size: Rows of a rank and step.
    """
    steps = [step for ranks in runs for step in zip(*(rank["steps"] for rank in ranks), strict=True)]
    ranks = len(runs[0])
    wall = [max(one["wall_s"] for one in step) for step in steps]
    cpu = [max(one["cpu_s"] for one in step) for step in steps]
    tokens = [[one["tokens"] for one in step] for step in steps]
    return {
        "rows_per_step": ranks * batch_size,
        "wall_s": spread(wall),
        "cpu_s_of_the_busiest_rank": spread(cpu),
        "rows_per_s": spread([ranks * batch_size / seconds for seconds in wall]),
        "rows_per_cpu_s_of_the_busiest_rank": spread([ranks * batch_size / seconds for seconds in cpu]),
        "slowest_over_mean_tokens": round(statistics.mean(max(t) * ranks / sum(t) for t in tokens), 4),
        "steps": len(steps),
    }
