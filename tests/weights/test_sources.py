"""From what `pretrained` says to files: names, checksums, what is here, what a saved tower remembers."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from tove_lvlm import storage
from tove_lvlm.config import ConfigError
from tove_lvlm.config.sources import WeightSource, resolve_source
from tove_lvlm.storage import MissingWeightsError
from tove_lvlm.weights import sources
from tove_lvlm.weights.sources import ChecksumError, fetch, from_record, recorded, status, verify


@pytest.fixture
def folder(tmp_path) -> Path:
    """One tensor under a standard name and another one under a name of its own."""
    storage.save_tensors(tmp_path / "w" / "model.safetensors", {"a": torch.ones(3)})
    torch.save({"a": torch.zeros(3)}, tmp_path / "w" / "own.pth")
    return tmp_path / "w"


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# ---- names ----


def test_resolve_source(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    assert resolve_source("./here", base=tmp_path) == str(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    assert resolve_source("here", base="/") == str(tmp_path / "here")
    assert resolve_source("openai/clip-vit-base-patch32") == "openai/clip-vit-base-patch32"
    assert resolve_source("package:rapidocr/models/x.onnx") == "package:rapidocr/models/x.onnx"
    for wrong in ("./gone", "/gone/x", "a/b/c", "~/gone", "gone/model.safetensors", "gone.yaml"):
        with pytest.raises(MissingWeightsError, match="does not exist"):
            resolve_source(wrong)
    with pytest.raises(MissingWeightsError, match="`shipped:no/such` is not shipped"):
        resolve_source("shipped:no/such")
    with pytest.raises(ConfigError, match="not of the form package:NAME/FILE"):
        resolve_source("package:rapidocr")


def test_resolve_shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "ASSETS", tmp_path)
    (tmp_path / "miniature" / "clip").mkdir(parents=True)
    assert resolve_source("shipped:miniature/clip") == str(tmp_path / "miniature" / "clip")
    assert sources.portable(str(tmp_path / "miniature" / "clip")) == "shipped:miniature/clip"
    with pytest.raises(MissingWeightsError, match="shipped: shipped:miniature/clip"):
        resolve_source("shipped:miniature/clop")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"sha256": "abc"}, "`sha256` is `abc`; expected 64 lower-case hexadecimal digits"),
        ({"sha256": "A" * 64}, "`sha256`"),
        ({"file": "/w.pth"}, "`file` is `/w.pth`; expected a name inside"),
        ({"file": "../w.pth"}, "`file`"),
        ({"file": "weights_*"}, r"`file` is `weights_\*`; a pattern must fit one of model.safetensors, "),
    ],
)
def test_what_a_source_cannot_say(keys, message):
    with pytest.raises(ConfigError, match=message):
        WeightSource(pretrained="a/b", **keys)


# ---- files ----


def test_a_folder_and_a_file_in_it(folder):
    assert storage.load_tensors(fetch(WeightSource(pretrained=str(folder))))["a"].tolist() == [1, 1, 1]
    own = WeightSource(pretrained=str(folder), file="own.pth")
    assert storage.load_tensors(fetch(own))["a"].tolist() == [0, 0, 0]
    assert fetch(own, weights=False) == folder
    assert fetch(WeightSource(pretrained=str(folder / "own.pth")), weights=False) == folder
    with pytest.raises(ConfigError, match=r"`file: own.pth`: `pretrained` is the file .*own.pth` already"):
        fetch(WeightSource(pretrained=str(folder / "own.pth"), file="own.pth"))
    with pytest.raises(MissingWeightsError, match=r"gone.pth` do not exist"):
        storage.weight_files(fetch(WeightSource(pretrained=str(folder), file="gone.pth")))


def test_another_checksum_is_refused_and_both_are_named(folder):
    file = folder / "model.safetensors"
    right = WeightSource(pretrained=str(folder), sha256=sha256(file))
    assert verify(right, folder) == verify(WeightSource(pretrained=str(folder)), folder) == sha256(file)
    wrong = WeightSource(pretrained=str(folder), sha256="0" * 64)
    with pytest.raises(ChecksumError, match=f"`{folder}` have the sha256 {sha256(file)}, expected {'0' * 64}"):
        verify(wrong, folder)


def test_fetch_says_that_a_hub_id_cannot_be_had():
    with pytest.raises(MissingWeightsError, match="`nobody/nothing` is no file or folder here and cannot be had"):
        fetch(WeightSource(pretrained="nobody/nothing"))


# ---- what is here ----


def test_status(folder):
    file = folder / "model.safetensors"
    here = WeightSource(pretrained=str(folder), sha256=sha256(file))
    found = status(here)
    assert (found.state, found.place, found.bytes) == ("present", str(folder), file.stat().st_size)
    assert (found.format, found.problem) == ("safetensors", None)
    assert status(WeightSource(pretrained=str(folder), file="own.pth")).format == "pth"
    other = WeightSource(pretrained=str(folder), sha256="0" * 64)
    assert status(other).state == "wrong checksum"
    assert "0" * 64 in status(other).problem
    assert status(other, checksum=False).state == "present"
    file.write_bytes(file.read_bytes()[:-1])
    assert status(here).state == "partial"
    assert "truncated" in status(here).problem
    file.unlink()
    assert status(here).state == "missing"
    assert status(WeightSource(pretrained=None)).state == "random"
    assert "not in the hub's cache" in status(WeightSource(pretrained="nobody/nothing")).problem


def test_status_of_shards(folder):
    (folder / "model.safetensors").rename(folder / "part1.safetensors")
    index = {"weight_map": {"a": "part1.safetensors", "b": "part2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert status(WeightSource(pretrained=str(folder))).state == "partial"
    storage.save_tensors(folder / "part2.safetensors", {"b": torch.ones(2)})
    found = status(WeightSource(pretrained=str(folder)))
    assert found.state == "present"
    assert found.bytes == sum((folder / f"part{k}.safetensors").stat().st_size for k in (1, 2))


# ---- record ----


def test_what_a_saved_tower_remembers_leads_back():
    source = WeightSource(
        pretrained="a/b", revision="v1", file="w.pth", sha256="0" * 64, license="mit", code_license="gpl-3.0"
    )
    entry = recorded(source, "1" * 64)
    assert entry["sha256"] == "1" * 64
    assert from_record(entry) == WeightSource(
        pretrained="a/b", revision="v1", file="w.pth", sha256="1" * 64, license="mit", code_license="gpl-3.0"
    )
    assert recorded(WeightSource(pretrained=str(storage.ASSETS / "miniature" / "clip")))["source"] == (
        "shipped:miniature/clip"
    )
    assert from_record({"source": "a/b", "revision": None, "sha256": None, "license": None}).file is None


def test_another_place_may_be_the_file_itself(folder):
    entry = {"source": "a/b", "file": "own.pth"}
    assert fetch(from_record(entry, str(folder))) == folder / "own.pth"
    assert fetch(from_record(entry, str(folder / "own.pth"))) == folder / "own.pth"
