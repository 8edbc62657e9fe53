"""The oldest versions that pyproject.toml allows, and the newest: the tower, models of transformers, and training."""

import shutil

import pytest

from helpers.paths import ROOT
from helpers.venvs import UV, make_venv, run

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not UV.is_file(), reason="needs uv beside python, as `make` sets it up"),
]
TOOLS = ("pytest>=8.3", "pytest-xdist>=3.6", "scikit-image>=0.25")
# What reads most of transformers, peft and DeepSpeed: models, checkpoints, LoRA, the Trainer under the launcher.
SUITE = ("tests/tower", "tests/lvlm", "tests/hosts/test_transformers.py", "tests/train/test_trainer.py")


@pytest.mark.parametrize("resolution", ["lowest-direct", "highest"])
def test_the_tests_pass_with_the_oldest_and_the_newest_versions(resolution, tmp_path):
    venv = make_venv(tmp_path / "venv", "--resolution", resolution, "--editable", f"{ROOT}[train,experts]", *TOOLS)
    try:
        run("python", "-m", "pytest", "-q", *SUITE, cwd=ROOT, venv=venv)
    finally:
        shutil.rmtree(venv)  # gigabytes
