"""Every `fusion.gate` in a whole tower: saved and loaded, detached, trained."""

import pytest
import torch

from helpers import tiny_towers
from tove_lvlm import ToVEVisionModel, build_tower
from tove_lvlm.config import ConfigError
from tove_lvlm.config.tower import GATES


@pytest.fixture(params=GATES)
def tower(request, tmp_path):
    return tiny_towers.wake(build_tower(tiny_towers.make_tower_yaml(tmp_path / "yaml", gate=request.param)))


@pytest.mark.parametrize("light", [False, True])
@torch.no_grad()
def test_saved_and_loaded(tower, tmp_path, light):
    expected = tower(tiny_towers.pixels())
    tower.save_pretrained(tmp_path / "saved", light=light)
    again = ToVEVisionModel.from_pretrained(tmp_path / "saved")
    assert again.config.fusion["gate"] == tower.config.fusion["gate"]
    found = again(tiny_towers.pixels())
    assert torch.equal(found.last_hidden_state, expected.last_hidden_state)
    assert torch.equal(found.gate_probs, expected.gate_probs)


@torch.no_grad()
def test_the_others_share_what_a_detached_expert_had(tower):
    before = tower(tiny_towers.pixels()).gate_probs
    tower.detach("normals")
    after = tower(tiny_towers.pixels()).gate_probs
    assert after[..., 1].eq(0).all()
    others = before * torch.tensor([1.0, 0, 1, 1])
    torch.testing.assert_close(after, others / others.sum(-1, keepdim=True))


@torch.no_grad()
def test_weights_differ_where_they_may(tower):
    """Between tokens, between pictures, or nowhere."""
    probs = tower(tiny_towers.pixels(3)).gate_probs
    kind = tower.config.fusion["gate"]
    between_tokens, between_images = (probs.std(dim).max() > 1e-4 for dim in (1, 0))
    assert between_tokens == (kind not in ("image", "constant"))
    assert between_images == (kind != "constant")


def test_all_of_the_gate_is_trained(tower):
    tower.train()
    tower(tiny_towers.pixels()).last_hidden_state.square().sum().backward()
    idle = {name for name, p in tower.tove_fusion.gate.named_parameters() if p.grad is None or not p.grad.any()}
    assert idle == ({"norm.weight"} if tower.config.fusion["gate"] == "constant" else set())


def test_another_word_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match=r"`fusion.gate` is 'images'.*valid: token \| token_and_expert \| image"):
        build_tower(tiny_towers.make_tower_yaml(tmp_path, gate="images"))
