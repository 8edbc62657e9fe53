"""A user's own expert: registered by decorator or by an entry point, then like any other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from helpers import tiny_towers
from tove_lvlm import ToVEVisionModel, build_tower
from tove_lvlm.experts import EXPERTS, Expert, describe, register_expert, schema


@pytest.fixture
def own():
    """The family `brightness`, for one test."""

    @register_expert("brightness")
    class Brightness(Expert):
        def __init__(self, fields):
            super().__init__(fields)
            self.net = nn.Conv2d(3, 5, kernel_size=4, stride=4)

        def encode(self, pixels_B3HW):
            return self.net(pixels_B3HW)

    yield Brightness
    for registry in (EXPERTS, schema.EXPERT_CONFIGS):
        del registry._items["brightness"]


def test_in_a_tower_saved_and_loaded(own, tmp_path):
    path = tiny_towers.make_tower_yaml(tmp_path / "tiny", ["depth"])
    content = yaml.safe_load(path.read_text())
    content["experts"].append({"name": "mine", "family": "brightness", "image_size": 16, "pretrained": None})
    path.write_text(yaml.safe_dump(content))
    tower = tiny_towers.wake(build_tower(path))
    assert tower.config.experts[1]["channels"] == 5
    assert tower.config.experts[1]["grid"] == [4, 4]
    out = tower(tiny_towers.pixels())
    tower.save_pretrained(tmp_path / "saved")
    again = ToVEVisionModel.from_pretrained(tmp_path / "saved")
    assert torch.equal(again(tiny_towers.pixels()).last_hidden_state, out.last_hidden_state)
    tower.detach("mine")
    assert not torch.equal(tower(tiny_towers.pixels()).last_hidden_state, out.last_hidden_state)


@pytest.mark.parametrize("wrong", [object, nn.Identity, type("NoEncode", (Expert,), {})])
def test_a_class_that_is_no_expert(own, wrong):
    with pytest.raises(ValueError, match="cannot be the expert family `other`: a subclass of Expert with `encode`"):
        register_expert("other")(wrong)
    assert "other" not in EXPERTS


def test_a_name_that_is_taken(own):
    with pytest.raises(ValueError, match="`timm` is taken by"):
        register_expert("timm")(own)


PLUGIN = """
from tove_lvlm.experts import Expert, register_expert

@register_expert("plugged")
class Plugged(Expert):
    def encode(self, pixels_B3HW):
        return pixels_B3HW[..., ::8, ::8]
"""


def installed(folder: Path, module: str) -> Path:
    """What pip leaves in site-packages for a package with one entry point."""
    info = folder / "my_experts-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-experts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[tove_lvlm.experts]\nplugged = {module}\n")
    return folder


def test_an_entry_point_is_found_by_the_family_it_brings(tmp_path):
    (installed(tmp_path, "my_experts") / "my_experts.py").write_text(PLUGIN)
    code = (
        "from tove_lvlm.experts import describe\n"
        "print(describe({'name': 'e', 'family': 'plugged', 'image_size': 16}).grid)\n"
        "try: describe({'name': 'e', 'family': 'pluged'})\n"
        "except ValueError as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    grid, error = done.stdout.splitlines()
    assert grid == "(2, 2)"
    assert "unknown expert family `pluged`; did you mean `plugged`" in error


def test_a_broken_plugin_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(installed(tmp_path, "not_there"))
    schema.load_plugins.cache_clear()
    with pytest.raises(ValueError, match="the expert plugin `plugged = not_there` cannot be imported"):
        describe({"name": "e", "family": "nobody"})
