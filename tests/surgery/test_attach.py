"""Attach gives back what detach took, byte for byte."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from helpers import tiny_towers
from helpers.tiny_towers import hashes
from tove_lvlm.checkpoints import detect, open_checkpoint
from tove_lvlm.config import UserError
from tove_lvlm.config.model import MODEL_FILE
from tove_lvlm.storage import load_tensors, new_folder, save_tensors
from tove_lvlm.surgery.attach import attach

KINDS = ["tower", "stage1", "adapter", "merged"]
GONE = ["normals", "cnn"]


@pytest.fixture(scope="module")
def without(checkpoints, tmp_path_factory):
    """Kind -> the checkpoint without GONE."""
    folder = tmp_path_factory.mktemp("without")
    for kind in KINDS:
        with new_folder(folder / kind) as writing:
            detect(checkpoints[kind]).with_experts(writing, GONE)
    return {kind: folder / kind for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_attach_gives_back_the_original(checkpoints, without, tmp_path, kind):
    untouched = hashes(without[kind]), hashes(checkpoints[kind])
    report = attach(without[kind], tmp_path / "back", checkpoints[kind])
    assert report == {"kind": kind, "attached": GONE, "detached": [], "written": [kind]}
    back, original = hashes(tmp_path / "back"), hashes(checkpoints[kind])
    if kind in ("adapter", "stage1"):  # the block says `detached: []` now, where it said nothing
        assert back.pop(MODEL_FILE) != original.pop(MODEL_FILE)
        block = json.loads((tmp_path / "back" / MODEL_FILE).read_text())["model"]
        assert block.pop("detached") == []
        assert block == json.loads((checkpoints[kind] / MODEL_FILE).read_text())["model"]
    assert back == original
    assert (hashes(without[kind]), hashes(checkpoints[kind])) == untouched
    pixels = tiny_towers.pixels()
    ours, theirs = (open_checkpoint(folder).tower(pixels) for folder in (tmp_path / "back", checkpoints[kind]))
    assert torch.equal(ours.last_hidden_state, theirs.last_hidden_state)


@pytest.mark.parametrize("kind", ["merged", "adapter"])
def test_attach_some(checkpoints, without, tmp_path, kind):
    report = attach(without[kind], tmp_path / "back", checkpoints[kind], ["cnn"])
    assert (report["attached"], report["detached"]) == (["cnn"], ["normals"])
    tower, expected = open_checkpoint(tmp_path / "back").tower, open_checkpoint(checkpoints[kind]).tower
    expected.detach("normals")
    assert tower.attached_names == expected.attached_names == ["depth", "shapes", "cnn"]
    assert torch.equal(tower(tiny_towers.pixels()).last_hidden_state, expected(tiny_towers.pixels()).last_hidden_state)


def test_shards_come_back_as_they_were(checkpoints, tmp_path):
    sharded = shutil.copytree(checkpoints["merged"], tmp_path / "sharded")
    (sharded / "model.safetensors").unlink()
    open_checkpoint(checkpoints["merged"]).model.save_pretrained(sharded, max_shard_size="60KB")
    with new_folder(tmp_path / "out") as writing:
        detect(sharded).with_experts(writing, GONE)
    attach(tmp_path / "out", tmp_path / "back", sharded)
    assert hashes(tmp_path / "back") == hashes(sharded)


def test_only_the_expert_is_taken_from_the_original(checkpoints, without, tmp_path):
    """A language model that was trained further after detaching stays as it is."""
    further = shutil.copytree(without["merged"], tmp_path / "further")
    tensors = load_tensors(further)
    tensors["language_model.lm_head.weight"] += 1
    save_tensors(further / "model.safetensors", tensors)
    attach(further, tmp_path / "back", checkpoints["merged"])
    back, original = load_tensors(tmp_path / "back"), load_tensors(checkpoints["merged"])
    assert back.keys() == original.keys()
    different = [name for name in back if not torch.equal(back[name], original[name])]
    assert different == ["language_model.lm_head.weight"]
    assert torch.equal(back[different[0]], tensors[different[0]])


def test_another_model_is_refused(checkpoints, without, tmp_path):
    other = shutil.copytree(checkpoints["merged"], tmp_path / "other")
    tensors = load_tensors(other)
    key = next(name for name in tensors if "tove_fusion.gate" in name)
    tensors[key] = tensors[key] + 1
    save_tensors(other / "model.safetensors", tensors)
    with pytest.raises(UserError, match="is not the model that .* its fusion or its CLIP has other weights"):
        attach(without["merged"], tmp_path / "out", other)
    config = json.loads((other / "config.json").read_text())
    config["vision_config"]["experts"][0]["mean"] = [0.1, 0.2, 0.3]
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="its `experts` is another"):
        attach(without["merged"], tmp_path / "out", other)
    config["vision_config"]["experts"][0]["name"] = "thickness"
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="it has the experts thickness, normals.*expected depth"):
        attach(without["merged"], tmp_path / "out", other)
    with pytest.raises(UserError, match="of kind tower and .* of kind merged"):
        attach(without["merged"], tmp_path / "out", checkpoints["tower"])
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_attached_is_said(checkpoints, without, clip_only, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="no expert `nromals`; did you mean `normals`"):
        attach(without["merged"], out, checkpoints["merged"], ["nromals"])
    with pytest.raises(UserError, match="`depth` is attached already; detached: normals, cnn"):
        attach(without["merged"], out, checkpoints["merged"], ["depth"])
    with pytest.raises(UserError, match="no detached expert .*: nothing to do"):
        attach(checkpoints["merged"], out, checkpoints["merged"])
    with pytest.raises(UserError, match="does not hold normals, cnn; name the checkpoint that does with `--from`"):
        attach(without["merged"], out)
    with pytest.raises(UserError, match="does not hold the weights of `normals` either"):
        attach(without["merged"], out, without["merged"])
    with pytest.raises(UserError, match="plain CLIP"):
        attach(clip_only, out, checkpoints["merged"])
    with pytest.raises(UserError, match="lies in the input"):
        attach(without["merged"], checkpoints["merged"] / "out", checkpoints["merged"])
    assert not out.exists()


def test_an_adapter_does_not_need_the_original(without, tmp_path):
    attach(without["adapter"], tmp_path / "back")
    assert open_checkpoint(tmp_path / "back").tower.attached_names == tiny_towers.EXPERT_NAMES


def test_an_expert_that_the_tower_itself_lacks_was_never_trained(checkpoints, tmp_path):
    adapter = shutil.copytree(checkpoints["adapter"], tmp_path / "adapter")
    about = json.loads((adapter / MODEL_FILE).read_text())
    tower = Path(about["model"]["tower"])
    without = tower.with_name("without_cnn.yaml")
    without.write_text(yaml.safe_dump(yaml.safe_load(tower.read_text()) | {"detached": ["cnn"]}))
    about["model"] |= {"tower": str(without), "detached": ["depth"]}
    (adapter / MODEL_FILE).write_text(json.dumps(about))
    assert open_checkpoint(adapter).tower.attached_names == ["normals", "shapes"]
    with pytest.raises(UserError, match="`cnn` is detached in the tower .* never trained with it"):
        attach(adapter, tmp_path / "out", experts=["cnn"])
    report = attach(adapter, tmp_path / "out")
    assert report["attached"] == ["depth"]
    assert open_checkpoint(tmp_path / "out").tower.attached_names == ["depth", "normals", "shapes"]
