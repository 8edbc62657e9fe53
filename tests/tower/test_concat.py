"""The baseline that concatenates channels: its output by hand, its width in the config, its place in the tower."""

import pytest
import torch

from helpers import tiny_towers
from tove_lvlm import ToVEVisionModel, build_tower
from tove_lvlm.config import ConfigError
from tove_lvlm.experts.preprocess import Preprocessing
from tove_lvlm.tower.transfer import resample

WIDTH = tiny_towers.WIDTH + 16 + 16 + 24 + 16  # CLIP, two stems, the ViT's and the CNN's channels


@pytest.fixture
def tower(tiny_tower_yaml):
    torch.manual_seed(0)
    return build_tower(tiny_tower_yaml, ["fusion.kind=concat"])


def test_parts_lie_beside_clip_in_order(tower):
    pixels = tiny_towers.pixels()
    output = tower(pixels)
    assert tower.config.hidden_size == WIDTH
    assert output.last_hidden_state.shape == (2, 16, WIDTH)
    assert torch.equal(output.last_hidden_state[..., : tiny_towers.WIDTH], output.hidden_states[0])
    given = Preprocessing(tiny_towers.SIZE, tuple(tower.config.image_mean), tuple(tower.config.image_std))
    grid = tower.experts(pixels, given)["cnn"]
    tokens = resample(grid, tiny_towers.SIDE).flatten(2).transpose(1, 2)
    expected = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(output.last_hidden_state[..., -16:], expected, atol=1e-5, rtol=1e-4)
    assert output.balance_loss.item() == 0
    assert not output.gate_probs.any()


def test_detached_part_is_zero_and_the_others_stay(tower):
    whole = tower(tiny_towers.pixels()).last_hidden_state
    tower.detach("normals")
    found = tower(tiny_towers.pixels()).last_hidden_state
    gone = slice(tiny_towers.WIDTH + 16, tiny_towers.WIDTH + 32)
    assert not found[..., gone].any()
    found[..., gone] = whole[..., gone]
    assert torch.equal(found, whole)


def test_gradient_reaches_stems_and_norms_and_nothing_frozen(tower):
    tower.requires_grad_(True)
    tower.train()(tiny_towers.pixels()).last_hidden_state.square().sum().backward()
    with_gradient = {name for name, p in tower.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert with_gradient
    assert all(name.startswith("tove_fusion.") for name in with_gradient)
    assert {name.split(".")[2] for name in with_gradient} == set(tiny_towers.EXPERT_NAMES)


def test_saved_and_loaded(tower, tmp_path):
    tower.save_pretrained(tmp_path)
    loaded = ToVEVisionModel.from_pretrained(tmp_path)
    assert loaded.config.hidden_size == WIDTH
    assert torch.equal(loaded(tiny_towers.pixels()).last_hidden_state, tower(tiny_towers.pixels()).last_hidden_state)


def test_unknown_kind_lists_the_kinds(tiny_tower_yaml):
    with pytest.raises(ConfigError, match="concat"):
        build_tower(tiny_tower_yaml, ["fusion.kind=conct"])
    with pytest.raises(ConfigError, match="shuffled"):
        build_tower(tiny_tower_yaml, ["fusion.gate=shuffle"])
