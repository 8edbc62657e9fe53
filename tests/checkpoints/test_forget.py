"""`tove detach --forget`: the files are those of a tower that never had the experts."""

import json

import pytest
import torch

from helpers import tiny_towers
from helpers.tiny_checkpoints import logits, save
from tove_lvlm import ToVEVisionModel, build_tower
from tove_lvlm.checkpoints import detect, open_checkpoint
from tove_lvlm.config import UserError
from tove_lvlm.storage import load_json, load_tensors
from tove_lvlm.surgery.attach import attach
from tove_lvlm.surgery.detach import detach

GONE = ["normals", "shapes"]


def forget(folder, output, experts=GONE):
    return detach(folder, output, experts, seconds=0.01, forget=True)


def names_of(folder) -> set[str]:
    return {name for file in folder.glob("*.safetensors") for name in load_tensors(file)}


@pytest.mark.parametrize("transfer", ["shared_out", "separate"])
@pytest.mark.parametrize("light", [False, True])
def test_a_tower_forgets(tmp_path, transfer, light):
    tower = tiny_towers.wake(build_tower(tiny_towers.make_tower_yaml(tmp_path / "yaml", transfer=transfer)))
    tower.save_pretrained(tmp_path / "whole", light=light)
    report = forget(tmp_path / "whole", tmp_path / "rest")
    assert report["removed"] == GONE
    again = ToVEVisionModel.from_pretrained(tmp_path / "rest")
    kept = [name for name in tower.expert_names if name not in GONE]
    assert again.expert_names == again.attached_names == kept
    assert again.config.detached == []
    assert again.tove_fusion.gate.fc2.weight.shape[0] == len(kept)
    tower.detach(*GONE)
    images = tiny_towers.pixels()
    torch.testing.assert_close(again(images).last_hidden_state, tower(images).last_hidden_state)
    left = names_of(tmp_path / "rest")
    assert not [name for name in left if any(part in name for part in GONE)]
    assert {name for name in names_of(tmp_path / "whole") if not any(part in name for part in GONE)} == left
    sources = json.loads((tmp_path / "rest" / "sources.json").read_text())
    assert list(sources["experts"]) == kept
    assert "normals" not in (tmp_path / "rest" / "README.md").read_text()
    assert not list((tmp_path / "rest").glob(".*"))


def test_a_merged_model_forgets_also_what_was_detached_before(checkpoints, tmp_path):
    detach(checkpoints["merged"], tmp_path / "once", ["normals"], seconds=0.01)
    report = forget(tmp_path / "once", tmp_path / "rest", ["shapes"])
    assert report["written"] == ["merged"]
    loaded = open_checkpoint(tmp_path / "rest")
    expected = open_checkpoint(checkpoints["merged"])
    expected.require_tower().detach(*GONE)
    torch.testing.assert_close(logits(loaded.llava), logits(expected.llava))
    info = json.loads((tmp_path / "rest" / "tove_model.json").read_text())
    assert info["tower"]["experts"] == loaded.require_tower().expert_names
    with pytest.raises(UserError, match="has no expert `normals`"):
        attach(tmp_path / "rest", tmp_path / "back", checkpoints["merged"], ["normals"])


def test_the_index_of_shards_tells_what_is_left(checkpoints, tmp_path):
    loaded = open_checkpoint(checkpoints["merged"])
    save(tmp_path / "shards", loaded.llava, loaded.processor, max_shard_size="100KB")
    forget(tmp_path / "shards", tmp_path / "rest")
    metadata, held = [], []
    for folder in (tmp_path / "shards", tmp_path / "rest"):
        index = load_json(folder / "model.safetensors.index.json")
        tensors = {name: t for file in folder.glob("*.safetensors") for name, t in load_tensors(file).items()}
        assert index["weight_map"].keys() == tensors.keys()
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
        metadata.append(index["metadata"])
        held.append(sum(t.numel() for t in tensors.values()))
    # transformers counts no buffers, so only the difference is that of the files.
    assert metadata[0]["total_parameters"] - metadata[1]["total_parameters"] == held[0] - held[1]


@pytest.mark.parametrize("kind", ["adapter", "stage1"])
def test_what_only_refers_to_its_tower_cannot(checkpoints, tmp_path, kind):
    with pytest.raises(UserError, match=f"{kind}.*refers to its tower.*merged model can forget"):
        forget(checkpoints[kind], tmp_path / "rest")
    assert not (tmp_path / "rest").exists()


def test_all_of_them_and_a_concatenation_are_refused(checkpoints, tmp_path):
    names = detect(checkpoints["tower"]).experts().expert_names
    with pytest.raises(UserError, match="no expert left.*without --forget"):
        forget(checkpoints["tower"], tmp_path / "rest", names)
    build_tower(tiny_towers.make_tower_yaml(tmp_path / "yaml", kind="concat")).save_pretrained(tmp_path / "concat")
    with pytest.raises(UserError, match="concatenates its experts"):
        forget(tmp_path / "concat", tmp_path / "rest")


def test_command_line(tove, checkpoints, tmp_path):
    code, out, _ = tove(
        "detach", checkpoints["merged"], "--output", tmp_path / "rest", "--experts", "normals", "--forget", "--json"
    )
    assert code == 0
    assert json.loads(out)["attached"] == open_checkpoint(tmp_path / "rest").require_tower().expert_names
