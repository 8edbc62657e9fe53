"""Detach and attach: not run, not saved, back bit for bit."""

import pytest
import torch

from helpers import tiny_towers
from tove_lvlm import ToVEVisionModel
from tove_lvlm.storage import WeightsError, load_tensors


def count_calls(tower) -> dict[str, int]:
    calls = dict.fromkeys(tower.expert_names, 0)
    for name, expert in tower.experts.items():

        def count(module, args, name=name):
            calls[name] += 1

        expert.register_forward_pre_hook(count)
    return calls


def test_detached_experts_are_not_run(tiny_tower):
    tower = tiny_towers.wake(tiny_tower)
    calls = count_calls(tower)
    tower.detach("depth", "cnn")
    tower(tiny_towers.pixels())
    assert calls == {"depth": 0, "normals": 1, "shapes": 1, "cnn": 0}
    tower.attach("cnn")
    tower(tiny_towers.pixels())
    assert calls == {"depth": 0, "normals": 2, "shapes": 2, "cnn": 1}
    tower.attach()
    tower(tiny_towers.pixels())
    assert calls == {"depth": 1, "normals": 3, "shapes": 3, "cnn": 2}


def test_every_attached_expert_runs_in_training_even_when_dropout_masks_it(tiny_tower_yaml):
    from tove_lvlm import build_tower

    tower = tiny_towers.wake(build_tower(tiny_tower_yaml, ["fusion.expert_dropout=0.9"])).train()
    calls = count_calls(tower)
    torch.manual_seed(0)
    for _ in range(5):
        tower(torch.zeros(1, 3, 16, 16))  # a text-only batch's dummy
    assert calls == dict.fromkeys(tower.expert_names, 5)


def test_attach_restores_bit_for_bit(tiny_tower):
    tower = tiny_towers.wake(tiny_tower)
    before, keys = tower(tiny_towers.pixels()), list(tower.state_dict())
    tower.detach("shapes")
    assert tower.attached_names == ["depth", "normals", "cnn"]
    assert not torch.equal(tower(tiny_towers.pixels()).last_hidden_state, before.last_hidden_state)
    tower.attach("shapes")
    after = tower(tiny_towers.pixels())
    assert torch.equal(after.last_hidden_state, before.last_hidden_state)
    assert torch.equal(after.gate_probs, before.gate_probs)
    assert list(tower.state_dict()) == keys
    assert tower.config.detached == []


def test_attach_takes_the_dtype_the_tower_has_now(tiny_tower):
    tiny_tower.detach("depth")
    tiny_tower.to(torch.bfloat16)
    tiny_tower.attach("depth")
    assert {p.dtype for p in tiny_tower.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in tiny_tower.experts.parameters())


def test_detached_experts_are_not_saved_and_come_back_from_their_source(tiny_tower, tmp_path):
    tower = tiny_towers.wake(tiny_tower)
    before = tower(tiny_towers.pixels()).last_hidden_state
    tower.detach("cnn")
    without = tower(tiny_towers.pixels()).last_hidden_state
    tower.save_pretrained(tmp_path)
    saved = load_tensors(tmp_path)
    assert not any(key.startswith("experts.cnn.") for key in saved)
    assert any(key.startswith("experts.depth.") for key in saved)
    assert any(key.startswith("tove_fusion.transfers.cnn.") for key in saved)
    loaded = ToVEVisionModel.from_pretrained(tmp_path)
    assert loaded.expert_names == tower.expert_names
    assert loaded.attached_names == ["depth", "normals", "shapes"]
    assert torch.equal(loaded(tiny_towers.pixels()).last_hidden_state, without)
    loaded.attach("cnn")
    assert torch.equal(loaded(tiny_towers.pixels()).last_hidden_state, before)


def test_attach_without_a_source_says_so(tiny_tower, tmp_path):
    tiny_tower.detach("cnn")
    tiny_tower.save_pretrained(tmp_path)
    loaded = ToVEVisionModel.from_pretrained(tmp_path)
    loaded.sources = {}
    with pytest.raises(WeightsError, match="weights of `cnn`"):
        loaded.attach("cnn")
    assert loaded.attached_names == ["depth", "normals", "shapes"]


def test_unknown_names_list_the_nearest(tiny_tower):
    with pytest.raises(ValueError, match="no expert `dept`; did you mean `depth`"):
        tiny_tower.detach("dept")
    with pytest.raises(ValueError, match="no expert `nromals`; did you mean `normals`"):
        tiny_tower.attach("nromals")
    with pytest.raises(ValueError, match="name the experts to detach"):
        tiny_tower.detach()


def test_detaching_twice_is_detaching_once(tiny_tower):
    tiny_tower.detach("cnn")
    tiny_tower.detach("cnn", "depth")
    assert tiny_tower.config.detached == ["depth", "cnn"]
    tiny_tower.attach("shapes")  # attached already
    assert tiny_tower.config.detached == ["depth", "cnn"]
