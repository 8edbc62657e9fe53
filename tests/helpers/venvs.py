"""Virtual environments of a test's own, for `make test-all`, and commands in them without a trace of the checkout."""

import os
import subprocess
import sys
from pathlib import Path

from helpers.paths import ROOT

UV = Path(sys.executable).with_name("uv")


def run(*command, cwd: Path, venv: Path | None = None, timeout: float = 1800) -> str:
    """Output of a command that must succeed, without a trace of the checkout in its environment.

    Args:
        command: Program and arguments.
        cwd: Where it runs.
        venv: A virtual environment that is active; uv needs none.
        timeout: In seconds.
    """
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "RANK", "WORLD_SIZE", "LOCAL_RANK")
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    environment |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    if venv is not None:
        paths = [path for path in environment["PATH"].split(os.pathsep) if not Path(path).is_relative_to(ROOT)]
        environment |= {"VIRTUAL_ENV": str(venv), "PATH": os.pathsep.join([str(venv / "bin"), *paths])}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}"
    return done.stdout


def make_venv(folder: Path, *arguments: str | Path) -> Path:
    """A new virtual environment of this Python in `folder`, with what `uv pip install ARGUMENTS` puts into it."""
    run(UV, "venv", "--quiet", "--python", sys.executable, folder, cwd=ROOT)
    run(UV, "pip", "install", "--quiet", "--python", folder / "bin" / "python", *arguments, cwd=ROOT)
    return folder
