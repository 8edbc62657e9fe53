"""What somebody gets who installs the package: a wheel in an empty virtual environment, and training from there."""

import json
import math
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.paths import ROOT
from helpers.venvs import UV, make_venv, run
from tove_lvlm.project_files import SCRIPTS

STEPS = 20
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not UV.is_file(), reason="needs uv beside python, as `make` sets it up"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """(wheel, sdist), both from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    for kind in ("--wheel", "--sdist"):
        run(UV, "build", "--quiet", kind, "--out-dir", folder, ROOT, cwd=folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Iterator[Path]:
    """A virtual environment with the wheel and nothing of the checkout; gigabytes, so it is removed at the end."""
    folder = tmp_path_factory.mktemp("venv")
    constraints = ["--constraint", ROOT / "constraints.txt"]
    make_venv(folder / "venv", *constraints, f"{built[0]}[train,experts]")
    yield folder / "venv"
    shutil.rmtree(folder)


def contents(wheel: Path) -> dict[str, int]:
    """Name of each file in a wheel -> its checksum."""
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: info.CRC for info in archive.infolist()}


def tracked(*under: str) -> set[str]:
    """The files that git knows, as far as they are in the working tree."""
    lines = run("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", *under, cwd=ROOT)
    return {line for line in lines.splitlines() if (ROOT / line).is_file()}


def test_wheel_has_the_package_with_its_data_the_projects_and_three_scripts(built):
    names = {name for name in contents(built[0]) if ".dist-info/" not in name}
    packed = {f"scripts/{script}" for script in SCRIPTS} | tracked("projects")
    assert names == tracked("tove_lvlm") | {f"tove_lvlm/_project_files/{name}" for name in packed}
    for name in (
        "tove_lvlm/py.typed",
        "tove_lvlm/assets/miniature/vicuna/tokenizer.model",
        "tove_lvlm/harnesses/lmms_eval/tasks/vsr/_vsr",
        "tove_lvlm/hosts/lavis/llava_caption.yaml",
    ):
        assert name in names


def test_sdist_builds_the_same_wheel(built, tmp_path):
    wheel, sdist = built
    run(UV, "build", "--quiet", "--wheel", "--out-dir", tmp_path, sdist, cwd=tmp_path)
    (again,) = tmp_path.glob("*.whl")
    assert again.name == wheel.name
    assert contents(again) == contents(wheel)
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    # What `make test` needs is there too.
    assert {
        "Makefile",
        "constraints.txt",
        "pyproject.toml",
        "tests/conftest.py",
        "scripts/build_miniature.py",
    } <= inside


def test_installed_wheel_trains_in_a_new_folder(installed, tmp_path):
    """Twenty steps of stage 1 under the real launcher, from a folder that `tove new` made."""
    told = run("tove", "new", "my_run", "--project", "miniature", cwd=tmp_path, venv=installed)
    folder = tmp_path / "my_run"
    assert "cd my_run" in told
    place = run("python", "-c", "import tove_lvlm; print(tove_lvlm.__file__)", cwd=folder, venv=installed)
    assert Path(place.strip()).is_relative_to(installed)
    data = folder / "outputs/miniature/data/train"
    render = f"from tove_lvlm.world.dataset import write_dataset as w; w({str(data)!r}, 'train', 64, all_tasks=True)"
    run("python", "-c", render, cwd=folder, venv=installed)
    port = str(21000 + os.getpid() % 8000)
    run(
        *("deepspeed", "--master_port", port, "scripts/pretrain_projector.py"),
        *("--cfg-path", "projects/miniature/pretrain.yaml"),
        *("--options", f"train.max_steps={STEPS}", "train.logging_steps=5"),
        cwd=folder,
        venv=installed,
    )
    out = folder / "outputs/miniature/tove-pretrain"
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines][-1] == STEPS
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert (out / "projector.safetensors").stat().st_size > 0
    assert (out / "run.yaml").is_file()
    assert str(ROOT) not in (out / "run.yaml").read_text()


def test_installed_demo_finds_its_scripts_in_the_wheel(installed, tmp_path):
    code = "from tove_lvlm import demo; print((demo.ROOT / 'scripts' / demo.STAGES['pretrain']).is_file(), demo.ROOT)"
    found, root = run("python", "-W", "ignore", "-c", code, cwd=tmp_path, venv=installed).split(maxsplit=1)
    assert found == "True"
    assert Path(root.strip()) == next(installed.glob("lib/python*/site-packages")) / "tove_lvlm" / "_project_files"
