"""The README of a saved tower: parts, sources, licences; a README of one's own stays."""

import json

import pytest
import yaml

from helpers import tiny_towers
from tove_lvlm import ToVEVisionModel
from tove_lvlm.tower.card import MARK


@pytest.fixture
def tower(tiny_tower):
    """With sources as a tower from the hub has them."""
    licenses = {"depth": "cc-by-nc-4.0", "normals": "mit", "shapes": "apache-2.0", "cnn": "apache-2.0"}
    tiny_tower.sources = {
        "clip": origin("openai/clip", "mit", revision="f00"),
        "experts": {name: origin(f"owner/{name}", license) for name, license in licenses.items()},
    }
    return tiny_tower


def origin(source, license, revision=None, code_license=None):
    keys = {"revision": revision, "file": None, "sha256": "ab" * 32, "code_license": code_license}
    return {"source": source, "license": license, **keys}


def saved(tower, folder) -> tuple[str, dict]:
    """(text, front matter) of the card."""
    tower.save_pretrained(folder)
    text = (folder / "README.md").read_text()
    return text, yaml.safe_load(text.split("---\n")[1])


def row(text, name) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_forbidden_part_is_named(tower, tmp_path):
    text, front = saved(tower, tmp_path)
    assert "**Commercial use is FORBIDDEN by the licence of `depth` (weights: cc-by-nc-4.0).**" in text
    assert front["license"] == "other"
    assert front["base_model"] == ["openai/clip", *(f"owner/{name}" for name in tiny_towers.EXPERT_NAMES)]
    assert row(text, "clip")[3] == "`openai/clip` at `f00`"
    assert row(text, "cnn") == [
        "cnn",
        "timm: resnet18",
        "16 x 2x2 (features)",
        "`owner/cnn`",
        "`abababababababab...`",
        "apache-2.0",
        "apache-2.0",
        "yes",
    ]
    assert f"An image of 16 x 16 pixels gives {tiny_towers.SIDE**2} tokens of width {tiny_towers.WIDTH}." in text
    tower.detach("depth")
    text, _ = saved(tower, tmp_path)
    assert "allow commercial use" in text, "its weights are not in the folder any more"
    assert row(text, "depth (detached)")[-1] == "no"


def test_what_is_not_stated_is_unknown(tower, tmp_path):
    tower.sources["experts"]["depth"] = origin("/home/me/depth", None)
    tower.sources["experts"]["cnn"] = origin(None, None)
    text, _ = saved(tower, tmp_path)
    assert "UNKNOWN, because of the licence of `depth` (weights: unknown).**" in text
    assert row(text, "depth")[3] == "a local copy (`depth`)"
    assert "/home/me" not in text
    assert row(text, "cnn")[3:] == ["none", "`abababababababab...`", "-", "apache-2.0", "yes"]


def test_the_licence_of_code_counts_too(tower, tmp_path):
    tower.sources["experts"]["depth"] = origin("owner/depth", "mit", code_license="research-only")
    text, _ = saved(tower, tmp_path)
    assert "FORBIDDEN by the licence of `depth` (code: research-only)." in text


def test_one_licence_for_all_is_that_of_the_card(tower, tmp_path):
    for entry in [tower.sources["clip"], *tower.sources["experts"].values()]:
        entry["license"] = "MIT"
    text, front = saved(tower, tmp_path)
    assert front["license"] == "mit"
    assert "allow commercial use" in text


def test_a_readme_of_one_s_own_stays(tower, tmp_path):
    saved(tower, tmp_path)
    own = (tmp_path / "README.md").read_text().replace(MARK, "Mine.")
    (tmp_path / "README.md").write_text(own)
    tower.detach("cnn")
    tower.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == own


def test_a_tower_without_sources_and_a_light_one(tower, tmp_path):
    tower.save_pretrained(tmp_path / "light", light=True)
    assert "Only the fusion is in this folder" in (tmp_path / "light" / "README.md").read_text()
    tower.sources = {}
    text, front = saved(tower, tmp_path / "bare")
    assert "base_model" not in front
    assert row(text, "depth")[3] == "none"
    assert ToVEVisionModel.from_pretrained(tmp_path / "bare").sources == {}
    assert json.loads((tmp_path / "bare" / "sources.json").read_text())["form"] == "whole"


def test_terms_of_a_licence_are_said(tower, tmp_path):
    tower.sources["experts"]["depth"] = origin("owner/depth", "dinov3-license")
    text, _ = saved(tower, tmp_path)
    assert "allow commercial use. With terms: Meta's DINOv3 licence" in text
