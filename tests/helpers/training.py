"""Training runs in a test: inside its own process or started, and what they leave."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from helpers.paths import ROOT


def environment(threads: int = 1) -> dict[str, str]:
    """Of a training process: offline, one thread, no GPU, the package importable."""
    kept = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return kept | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def start(
    script: str,
    cfg_path: Path,
    options: list[str],
    ranks: int | None = None,
    log: Path | None = None,
    launcher: str = "deepspeed",
) -> subprocess.Popen:
    """Start a training script beside its YAML.

    Args:
        script: Its name in scripts/.
        cfg_path: The YAML.
        options: For `--options`.
        ranks: How many the launcher starts; None for plain python.
        log: Where the output is added; a pipe when left out.
        launcher: `deepspeed` or `torchrun`.
    """
    command = [str(ROOT / "scripts" / script), "--cfg-path", str(cfg_path), "--options", *options]
    if ranks is not None:
        port = 20000 + (os.getpid() * 7 + abs(hash((script, *options)))) % 20000
        module, number = {
            "deepspeed": ("deepspeed.launcher.runner", "--num_accelerators"),
            "torchrun": ("torch.distributed.run", "--nproc-per-node"),
        }[launcher]
        command = ["-m", module, number, str(ranks), "--master_port", str(port), *command]
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=cfg_path.parent,
        env=environment(),
        stdout=subprocess.PIPE if log is None else log.open("ab"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )


def finish(process: subprocess.Popen, timeout: float = 1500) -> tuple[int, str]:
    """(exit code, output) of a started script; no rank outlives it."""
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


def own_world(shared: Path, folder: Path, stages: Iterable[str]) -> Path:
    """A shared world with output folders of a test's own: its folders as links, its YAMLs changed."""
    for entry in shared.iterdir():
        if entry.is_dir():
            (folder / entry.name).symlink_to(entry)
        else:
            shutil.copy(entry, folder)
    for stage in stages:
        text = (folder / f"{stage}.yaml").read_text()
        (folder / f"{stage}.yaml").write_text(text.replace(str(shared), str(folder)))
    return folder


def run_here(stage: Any, cfg_path: Path, options: Sequence[str]) -> int:
    """Exit code of a stage, run in this process on one rank with plain torch."""
    from tove_lvlm.train.launch import main

    arguments = ["--cfg-path", str(cfg_path)]
    return main(stage, [*arguments, "--options", *options] if options else arguments)


def trainer_of(stage: Any, cfg_path: Path, options: Sequence[str]) -> Any:
    """A stage's trainer that is built and not yet run."""
    from tove_lvlm.train.launch import prepare_environment
    from tove_lvlm.train.run import build_trainer
    from tove_lvlm.train.stage import load_run

    run = load_run(stage, cfg_path, list(options))
    prepare_environment(run, None)
    return build_trainer(stage, run)[0]


def free_port() -> int:
    """A TCP port of this machine that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def metrics(folder: Path) -> list[dict]:
    """What was logged, without what depends on the clock."""
    timed = ("images_per_s", "tokens_per_s", "peak_memory_gb")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


def losses(folder: Path) -> dict[int, float]:
    """Step -> loss, as logged."""
    return {line["step"]: line["loss"] for line in metrics(folder)}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """A whole model's tensors, or those of stage 1."""
    path = folder / "model.safetensors"
    return load_file(path if path.exists() else folder / "projector.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether both have the same keys and equal tensors."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
