"""A tower that brings its code: `trust_remote_code=True` in a process where this package cannot be imported."""

import ast
import json
import os
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from helpers import tiny_bases, tiny_towers
from helpers.without_package import ABSENT
from tove_lvlm.cli import app
from tove_lvlm.config import UserError
from tove_lvlm.tower.remote_code import bundle

LOADER = (
    ABSENT
    + """
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel

folder, again, wanted = sys.argv[1:]
pixels, tokens = torch.load(wanted)
for place in (folder, again):
    config = AutoConfig.from_pretrained(place, trust_remote_code=True)
    processor = AutoImageProcessor.from_pretrained(place, trust_remote_code=True)
    tower = AutoModel.from_pretrained(place, trust_remote_code=True)
    names = {type(thing).__name__ for thing in (config, processor, tower)}
    assert names == {"ToVEVisionConfig", "ToVEImageProcessor", "ToVEVisionModel"}, names
    assert type(tower).__module__.startswith("transformers_modules."), type(tower).__module__
    assert torch.equal(tower(pixels).last_hidden_state, tokens)
    assert all(p.requires_grad == n.startswith("tove_") for n, p in tower.named_parameters())
    if place == folder:
        tower.save_pretrained(again)
tower.detach("depth")
assert not torch.equal(tower(pixels).last_hidden_state, tokens)
print("loaded")
"""
)


@pytest.fixture(scope="module", params=["clip", "siglip"])
def exported(request, tmp_path_factory):
    """(folder, the tower that was exported through the command)."""
    from tove_lvlm import build_tower

    folder = tmp_path_factory.mktemp("remote")
    torch.manual_seed(0)
    if request.param == "clip":
        path = tiny_towers.make_tower_yaml(folder / "parts")
    else:
        tiny_bases.make_base(folder / "parts" / "base", "siglip_vision_model")
        base = {"family": "transformers", "pretrained": "./base", "layer": -2}
        path = tiny_bases.make_tower_on(folder / "parts", base)
    tower = tiny_towers.wake(build_tower(path))
    tower.save_pretrained(folder / "tower")
    arguments = ["export", str(folder / "tower"), "--format", "remote-code", "--output", str(folder / "out"), "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert json.loads(done.stdout) == {"format": "remote-code", "output": str(folder / "out")}
    return folder / "out", tower


def test_loads_runs_and_saves_where_the_package_is_not_installed(exported, tmp_path):
    folder, tower = exported
    with torch.no_grad():
        torch.save((tiny_towers.pixels(), tower(tiny_towers.pixels()).last_hidden_state), tmp_path / "wanted.pt")
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            LOADER,
            str(folder),
            str(tmp_path / "again"),
            str(tmp_path / "wanted.pt"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=kept | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == "loaded"


def test_loads_with_the_package_too_and_without_trust(exported):
    """The package's own class is taken where nobody asks for the code in the folder."""
    from transformers import AutoModel

    from tove_lvlm import ToVEVisionModel

    folder, tower = exported
    loaded = AutoModel.from_pretrained(folder, trust_remote_code=False)
    assert type(loaded) is ToVEVisionModel
    with torch.no_grad():
        assert torch.equal(
            loaded(tiny_towers.pixels()).last_hidden_state, tower(tiny_towers.pixels()).last_hidden_state
        )


def test_the_bundle_is_closed_and_flat():
    files = bundle()
    for name, text in files.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1, name
                needed = [node.module] if node.module else [alias.name for alias in node.names]
                assert {f"{module}.py" for module in needed} <= files.keys(), (name, needed)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                tops = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                assert not any(top.startswith("tove_lvlm") for top in tops), name
    assert not any("\nAutoModel.register(" in text or "\nAutoConfig.register(" in text for text in files.values())


def test_transformers_asks_for_no_package_that_a_loaded_tower_does_not_need(tmp_path):
    """On a hub every file's imports are checked; timm and omegaconf are named only where they are used."""
    from transformers.dynamic_module_utils import get_imports, get_relative_import_files

    for name, text in bundle().items():
        (tmp_path / name).write_text(text)
    brought = {"torch", "transformers", "safetensors", "huggingface_hub", "yaml", "numpy", *sys.stdlib_module_names}
    assert {top for name in bundle() for top in get_imports(tmp_path / name)} <= brought
    entry = tmp_path / "tove_tower_modeling.py"
    assert {*map(str, tmp_path.glob("*.py"))} <= {str(entry), *get_relative_import_files(entry)}


def test_nothing_is_overwritten(exported):
    folder, _ = exported
    with pytest.raises(UserError, match="is the input"):
        CliRunner().invoke(
            app, ["export", str(folder), "--format", "remote-code", "--output", str(folder)], catch_exceptions=False
        )
