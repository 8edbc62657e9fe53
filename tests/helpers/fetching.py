"""A hub on this machine with a tiny tower's parts, and `tove fetch` from it."""

import hashlib
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants
from typer.testing import CliRunner

from helpers import tiny_towers
from helpers.fake_hub import FakeHub
from tove_lvlm.cli import app
from tove_lvlm.storage import load_tensors

WANTED = {
    "owner/clip/config.json",
    "owner/clip/preprocessor_config.json",
    "owner/clip/model.safetensors",
    "owner/cnn/config.json",
    "owner/cnn/resnet.pth",
}
"""What `tower` needs of the hub."""


def run(*arguments: object):
    return CliRunner().invoke(app, ["fetch", *map(str, arguments)], catch_exceptions=False)


def files_of(report: dict) -> dict[str, str]:
    return {f"{row['repo']}/{file['name']}": file["state"] for row in report["repositories"] for file in row["files"]}


# ---- fixtures, for the test files that import them ----


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    """A tiny tower's folder; its CNN is published as a `.pth`."""
    folder = tmp_path_factory.mktemp("parts")
    tiny_towers.make_tower_yaml(folder, ["depth", "cnn"])
    torch.save(load_tensors(folder / "cnn"), folder / "cnn" / "resnet.pth")
    (folder / "cnn" / "model.safetensors").unlink()
    return folder


@pytest.fixture
def served(parts, tmp_path, monkeypatch):
    """Its CLIP and CNN on a hub; depth stays a folder. The hub's cache is empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    files = {part: {p.name: p.read_bytes() for p in (parts / part).iterdir()} for part in ("clip", "cnn")}
    with FakeHub({"owner/clip": files["clip"], "owner/cnn": files["cnn"]}) as fake:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", fake.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", fake.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", fake.url)
        yield fake


@pytest.fixture
def tower(parts, tmp_path) -> Path:
    """Its YAML with hub ids."""
    content = yaml.safe_load((parts / "tower.yaml").read_text())
    content["clip"]["pretrained"] = "owner/clip"
    content["experts"][0]["pretrained"] = str(parts / "depth")
    architecture = {
        key: tiny_towers.EXPERTS["cnn"][key] for key in ("architecture", "model_args", "image_size", "out_index")
    }
    sha256 = hashlib.sha256((parts / "cnn" / "resnet.pth").read_bytes()).hexdigest()
    content["experts"][1] |= {"pretrained": "owner/cnn", "file": "resnet.pth", "sha256": sha256, "license": "mit"}
    content["experts"][1] |= architecture
    path = tmp_path / "tower.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
