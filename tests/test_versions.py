"""The oldest versions that pyproject.toml allows, and the newest: the tower, models of transformers, and training."""

import shutil

import pytest

from helpers.paths import ROOT
from helpers.venvs import UV, make_venv, run

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not UV.is_file(), reason="needs uv beside python, as `make` sets it up"),
]
TOOLS = ("pytest>=8.3", "pytest-xdist>=3.6", "scikit-image>=0.25", "webdataset>=1.0")
# What reads most of transformers, peft and DeepSpeed: models, checkpoints, LoRA, the Trainer under the launcher.
SUITE = (
    "tests/tower",
    "--ignore=tests/tower/test_remote_code.py",
    "tests/lvlm",
    *(f"tests/checkpoints/test_{name}.py" for name in ("adapter", "detect", "merged", "model_info", "stage1")),
    "tests/inference",
    "tests/surgery/test_graft.py",
    "tests/hosts/test_transformers.py",
    "tests/recipes/llava",
    *(f"tests/train/test_{name}.py" for name in ("checkpoint", "guards", "loop")),
    "tests/train/test_launch.py::test_broken_sample_ends_with_code_2_and_its_name",
)


@pytest.mark.parametrize("resolution", ["lowest-direct", "highest"])
def test_the_tests_pass_with_the_oldest_and_the_newest_versions(resolution, tmp_path):
    venv = make_venv(tmp_path / "venv", "--resolution", resolution, "--editable", f"{ROOT}[train,experts]", *TOOLS)
    try:
        run("python", "-m", "pytest", "-q", *SUITE, cwd=ROOT, venv=venv)
    finally:
        shutil.rmtree(venv)  # gigabytes
