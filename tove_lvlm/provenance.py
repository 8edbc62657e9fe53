"""Where a number comes from: commit, package versions, hardware. Nothing heavy is imported.

See docs/evaluation.md, "Records".
"""

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("tove-lvlm", "torch", "transformers", "tokenizers", "timm", "open_clip_torch", "peft", "pycocoevalcap")
"""Those that can change an answer or its score."""

RUN_FILE = "provenance.json"
"""Where a training run keeps `of_run`."""
_OF_TRAINING = ("tove-lvlm", "torch", "transformers", "tokenizers", "accelerate", "deepspeed", "peft", "timm",
                "open_clip_torch")  # fmt: skip


def of_run(device: str, world_size: int) -> dict[str, Any]:
    """What a training run says of the programs and the machine that made it.

    Args:
        device: Rank 0's, as torch names it.
        world_size: Number of ranks.
    """
    return {
        "versions": versions(_OF_TRAINING),
        "commit": commit(),
        "hardware": hardware(device),
        "world_size": world_size,
    }


def commit() -> str:
    """Commit of this package's checkout, with `+` when it has changes; `unknown` where it is installed elsewhere."""
    if not (ROOT / ".git").exists():  # a virtual environment may lie in somebody else's repository
        return "unknown"
    try:
        git = ["git", "-C", str(ROOT)]
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
        dirty = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + ("+" if dirty.strip() else "")


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Package -> version for those that are installed, and Python's own."""
    installed = {"python": platform.python_version()}
    for name in packages:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def cpu_name() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def hardware(device: str = "cpu") -> str:
    """What something ran on: a GPU's name, or the processor and its number of cores.

    Args:
        device: As torch names it.
    """
    torch = sys.modules.get("torch")
    if device.startswith("cuda") and torch is not None:
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {os.cpu_count()} cores"


def cpu_has_fast_bf16() -> bool:
    """Whether torch has bf16 kernels for this processor; without them it is 15 to 80 times as slow as float32."""
    import torch

    return torch.backends.cpu.get_cpu_capability().startswith(("AVX512", "SVE"))
