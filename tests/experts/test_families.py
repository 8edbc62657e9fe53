"""A family of experts is one folder: found by its name, its fields without torch, its class when it is built."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from helpers import tiny_towers
from tove_lvlm import ToVEVisionModel, build_tower
from tove_lvlm.config.sources import WEIGHT_KEYS
from tove_lvlm.experts import EXPERTS, describe, families, schema
from tove_lvlm.experts.libraries import code_license
from tove_lvlm.experts.schema import EXPERT_CONFIGS, ExpertConfig, parse_expert

FOLDER = Path(families.__file__).parent
NAMES = EXPERT_CONFIGS.folders()
IN_USE = {
    "dense_vit",
    "depth",
    "detector",
    "dexined",
    "edge_filter",
    "hed",
    "normal_bae",
    "normals_from_depth",
    "onnx",
    "open_clip",
    "text_map",
    "tflite",
    "timm",
    "transformers",
}
"""Names that YAMLs and saved towers hold."""


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_fields_of_the_whole_catalogue_are_checked_without_torch():
    code = """
import sys
from tove_lvlm.experts.catalogue import catalogue, entry_of
from tove_lvlm.experts.schema import EXPERT_CONFIGS, parse_expert
from tove_lvlm.weights.sources import WEIGHT_KEYS
seen = set()
for name in catalogue():
    entry = {key: value for key, value in entry_of(name).items() if key not in WEIGHT_KEYS}
    seen.add(parse_expert(entry, "here")["family"])
print(*sorted(seen))
for name in EXPERT_CONFIGS.names():  # those of no entry too
    EXPERT_CONFIGS.get(name)
print({"torch", "transformers", "timm", "open_clip", "kornia"} & sys.modules.keys())
"""
    seen, heavy = python(code).splitlines()
    assert set(seen.split()) <= set(NAMES)
    assert heavy == "set()"


def test_a_family_is_imported_when_it_is_asked_for():
    code = """
import re, sys
from tove_lvlm.experts import EXPERTS
def loaded():
    return [name.split(".")[3] for name in sys.modules if re.fullmatch(r"tove_lvlm.experts.families.*.model", name)]
print(EXPERTS.names(), "hed" in EXPERTS, loaded())
EXPERTS.get("hed")
print(loaded())
"""
    before, after = python(code).splitlines()
    assert before == f"{NAMES} True []"
    assert after == "['hed']"


def test_a_folder_for_each_family_and_nothing_else():
    assert IN_USE <= set(NAMES)
    assert EXPERTS.folders() == NAMES
    assert sorted(path.name for path in FOLDER.iterdir() if path.is_dir() and path.name != "__pycache__") == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_has_both_files_and_registers_its_name(name):
    assert {"__init__.py", "config.py", "model.py"} <= {path.name for path in (FOLDER / name).iterdir()}
    for registry, file in ((EXPERT_CONFIGS, "config"), (EXPERTS, "model")):
        assert registry.get(name).__module__ == f"tove_lvlm.experts.families.{name}.{file}"
        registered = re.findall(r"\.register\((.+)\)", (FOLDER / name / f"{file}.py").read_text())
        assert registered == [f'"{name}"']
    assert EXPERTS.get(name).library == EXPERT_CONFIGS.get(name).library.name
    assert code_license(EXPERTS.get(name).library)


@pytest.mark.parametrize("name", NAMES)
def test_the_entries_that_a_config_shows_are_valid(name):
    EXPERT_CONFIGS.get(name)
    page = sys.modules[f"tove_lvlm.experts.families.{name}.config"].__doc__
    entries = [yaml.safe_load(line) for line in re.findall(r"^ {4}(\{.*?\})$", page, re.M | re.S)]
    whole = [entry for entry in entries if entry.get("pretrained") != "FOLDER"]  # which states the rest
    assert whole
    for entry in whole:
        fields = {key: value for key, value in entry.items() if key not in WEIGHT_KEYS}
        assert parse_expert(fields, "here")["family"] == name


# ---- a new one ----

CONFIG = """
from dataclasses import dataclass
from typing import ClassVar

from ...schema import EXPERT_CONFIGS, ExpertConfig, Library


@EXPERT_CONFIGS.register("stripes")
@dataclass(frozen=True, kw_only=True)
class StripesConfig(ExpertConfig):
    library: ClassVar = Library(name="stripe_lib", module="stripe_lib", extra=None, license="isc")
    width: int = 5

    @classmethod
    def stated_in(cls, folder):
        return {"width": int((folder / "width.txt").read_text())} if (folder / "width.txt").is_file() else {}
"""
MODEL = """
import torch

from ...base import EXPERTS, Expert
from .config import StripesConfig
from .network import stripes


@EXPERTS.register("stripes")
class Stripes(Expert):
    library = StripesConfig.library.name

    def __init__(self, fields):
        super().__init__(fields)
        self.network = stripes(fields["width"])

    def encode(self, pixels_B3HW):
        return self.network(pixels_B3HW)

    def adapt_weights(self, tensors):
        return {f"network.{key}": tensor for key, tensor in tensors.items()}
"""
NETWORK = """
from torch import nn


def stripes(width):
    return nn.Conv2d(3, width, kernel_size=(1, 4), stride=4)
"""


@pytest.fixture
def dropped(tmp_path, monkeypatch):
    """A folder `stripes` beside those of the package, for one test."""
    folder = tmp_path / "more" / "stripes"
    folder.mkdir(parents=True)
    for file, text in {"__init__": "", "config": CONFIG, "model": MODEL, "network": NETWORK}.items():
        (folder / f"{file}.py").write_text(text)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(folder.parent)])
    yield folder
    for registry in (EXPERTS, EXPERT_CONFIGS):
        registry._items.pop("stripes", None)
    for module in [name for name in sys.modules if name.startswith(f"{families.__name__}.stripes")]:
        del sys.modules[module]
    vars(families).pop("stripes", None)


def test_a_new_folder_is_in_a_tower_saved_and_loaded(dropped, tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / "weights"
    weights.mkdir()
    state = torch.nn.Conv2d(3, 7, kernel_size=(1, 4), stride=4).state_dict()
    torch.save(state, weights / "pytorch_model.bin")
    (weights / "width.txt").write_text("7")
    path = tiny_towers.make_tower_yaml(tmp_path / "tiny", ["depth"])
    content = yaml.safe_load(path.read_text())
    content["experts"].append({"name": "mine", "family": "stripes", "image_size": 16, "pretrained": str(weights)})
    path.write_text(yaml.safe_dump(content))
    tower = tiny_towers.wake(build_tower(path))
    entry = tower.config.experts[1]
    assert (entry["family"], entry["width"], entry["channels"], entry["grid"]) == ("stripes", 7, 7, [4, 4])
    assert torch.equal(tower.experts["mine"].network.weight, state["weight"])
    out = tower(tiny_towers.pixels())
    tower.save_pretrained(tmp_path / "saved")
    again = ToVEVisionModel.from_pretrained(tmp_path / "saved")
    assert torch.equal(again(tiny_towers.pixels()).last_hidden_state, out.last_hidden_state)
    tower.detach("mine")
    assert not torch.equal(tower(tiny_towers.pixels()).last_hidden_state, out.last_hidden_state)


def test_a_new_folder_needs_no_other_edit(dropped):
    assert EXPERT_CONFIGS.folders() == EXPERTS.folders() == sorted([*NAMES, "stripes"])
    assert "stripes" in EXPERT_CONFIGS.names()
    assert describe({"name": "mine", "family": "stripes", "image_size": 16}).library == "stripe_lib"
    assert code_license("stripe_lib") == "isc"
    with pytest.raises(ValueError, match=r"unknown expert family `strips`; did you mean `stripes`\?"):
        describe({"name": "mine", "family": "strips"})


def test_the_name_of_a_folder_is_taken_before_it_is_imported(dropped):
    with pytest.raises(ValueError, match="`stripes` is taken by .*families.stripes.config.StripesConfig"):
        EXPERT_CONFIGS.register("stripes")(ExpertConfig)


@pytest.mark.parametrize("name", ["", "..", "timm.config", "Timm", "__pycache__"])
def test_what_is_no_name_of_a_folder_imports_nothing(name):
    assert name not in EXPERT_CONFIGS
    with pytest.raises(ValueError, match="unknown expert family"):
        schema.expert_config_class(name)
