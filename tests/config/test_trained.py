"""A tower's YAML with trained weights: what it leaves out is what it was in training, whatever the defaults became."""

import json
import shutil

import pytest
import torch
import yaml

from helpers import tiny_towers
from helpers.tiny_checkpoints import image_inputs, logits, make_checkpoints
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.config import ConfigError
from tove_lvlm.config.model import MODEL_FILE, ModelConfig
from tove_lvlm.config.tower import EARLIER
from tove_lvlm.config.trained import left_out, left_out_of_start
from tove_lvlm.lvlm.build import read_tower
from tove_lvlm.tower.from_yaml import read_tower_yaml

KEYS = ("transfer", "expert_resample")


@pytest.fixture(scope="module")
def before(tmp_path_factory, llm):
    """Kind -> folder, as a version without KEYS wrote them: neither their files nor the tower's YAML name them."""
    folder = tmp_path_factory.mktemp("before")
    path = tiny_towers.make_tower_yaml(folder / "tower", transfer="separate")
    tower = yaml.safe_load(path.read_text()) | {"expert_resample": "bilinear"}
    path.write_text(yaml.safe_dump(tower))
    folders = make_checkpoints(folder, llm, path)
    del tower["fusion"]["transfer"], tower["expert_resample"]
    path.write_text(yaml.safe_dump(tower))
    for file in (*folder.rglob(MODEL_FILE), *folder.rglob("config.json")):
        content = json.loads(file.read_text())
        for block in (content, content.get("tower"), content.get("fusion"), content.get("vision_config")):
            for key in KEYS if block else ():
                block.pop(key, None)
        content.get("vision_config", {}).get("fusion", {}).pop("transfer", None)
        file.write_text(json.dumps(content))
        assert not any(key in file.read_text() for key in KEYS if key != "transfer")
    return folders


@pytest.mark.parametrize("kind", ["tower", "stage1", "adapter", "merged"])
def test_files_of_before_load_as_what_they_were(before, kind):
    tower = open_checkpoint(before[kind]).require_tower()
    assert (tower.config.fusion["transfer"], tower.config.expert_resample) == ("separate", "bilinear")
    merged = open_checkpoint(before["merged"])
    images = tiny_towers.pixels()
    assert torch.equal(tower(images).last_hidden_state, merged.require_tower()(images).last_hidden_state)
    if kind == "adapter":
        found = logits(open_checkpoint(before[kind]).model)
        torch.testing.assert_close(found, logits(merged.model, image_inputs(merged.llava)))


def test_stage_two_goes_on_from_a_stage_one_of_before(before, llm):
    block = json.loads((before["adapter"] / MODEL_FILE).read_text())["model"]
    start = ModelConfig(llm=str(llm), tower=block["tower"], pretrain_mm_mlp_adapter=str(before["stage1"]))
    tower = read_tower(start)
    assert (tower.fusion.transfer, tower.expert_resample) == ("separate", "bilinear")
    new = read_tower(ModelConfig(llm=str(llm), tower=block["tower"]))
    assert (new.fusion.transfer, new.expert_resample) == ("shared_out", "bicubic")


def test_what_the_yaml_says_is_compared_and_not_replaced(before, tmp_path):
    folder = shutil.copytree(before["adapter"], tmp_path / "adapter")
    info = json.loads((folder / MODEL_FILE).read_text())
    towers = shutil.copytree(before["adapter"].parent / "tower", tmp_path / "tower")
    tower = yaml.safe_load((towers / "tower.yaml").read_text()) | {"expert_resample": "bicubic"}
    (towers / "tower.yaml").write_text(yaml.safe_dump(tower))
    info["model"]["tower"] = str(towers / "tower.yaml")
    (folder / MODEL_FILE).write_text(json.dumps(info))
    with pytest.raises(ConfigError, match="trained with `expert_resample` bilinear, .* now says bicubic"):
        open_checkpoint(folder)


def test_left_out(tmp_path):
    assert left_out(tmp_path)["expert_resample"] == "bilinear", "nothing is known of it: it is older than all keys"
    assert left_out(tmp_path)["fusion"] == {key: EARLIER[key] for key in ("transfer_scale", "transfer")}
    tower = {"gate_input": "tokens", "transfer": "shared_out", "temperature": 0.5, "select_layer": -2, "experts": []}
    (tmp_path / MODEL_FILE).write_text(json.dumps({"tower": tower}))
    found = left_out(tmp_path)
    assert found["fusion"] == {
        "gate": "token", "transfer": "shared_out", "temperature": 0.5, "transfer_scale": None
    }  # fmt: skip
    assert left_out_of_start(ModelConfig(llm="llm", tower="t.yaml")) == {}


def test_it_fills_the_yaml_and_no_more(tmp_path):
    path = tiny_towers.make_tower_yaml(tmp_path, temperature=2.0, gate_input="constant")
    filling = {"fusion": {"temperature": 0.5, "gate": "token", "transfer": "separate"}, "expert_resample": "bilinear"}
    with pytest.warns(FutureWarning, match="`fusion.gate_input` is deprecated"):
        tower = read_tower_yaml(path, left_out=filling)
    assert (tower.fusion.temperature, tower.fusion.gate, tower.fusion.transfer) == (2.0, "constant", "separate")
    assert tower.expert_resample == "bilinear"
    with pytest.raises(ConfigError, match=r"`expert_resample` is 'nearest' .*valid: bicubic \| bilinear"):
        read_tower_yaml(path, ["expert_resample=nearest"], left_out=filling)
