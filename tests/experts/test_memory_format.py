"""Channels last: for convolutional experts, found by their layers; the same grids, names and files."""

import copy

import pytest
import torch
from torch import nn

from helpers import tiny_towers
from helpers.small_experts import CONVOLUTIONAL, ENTRIES, small_expert, smooth_pixels
from tove_lvlm import ToVEVisionModel, build_tower
from tove_lvlm.config import UserError
from tove_lvlm.config.sources import WEIGHT_KEYS
from tove_lvlm.experts import ExpertHub, build_expert
from tove_lvlm.experts.catalogue import catalogue, entry_of
from tove_lvlm.experts.memory_format import SHARE, convolution_share, set_channels_last
from tove_lvlm.experts.preprocess import Preprocessing

GIVEN = Preprocessing(16, (0.5,) * 3, (0.5,) * 3)
OF_CATALOGUE = {
    "dinov2_l14_reg": False,
    "sam_b16": False,
    "openclip_l14_datacomp": False,
    "siglip_so400m_14_384_transformers": False,
    "canny": False,
    "convnext_b_in12k": True,
    "dpt_large": True,
    "depth_anything_v2_l": True,
    "normal_bae": True,
    "pp_ocr_det": True,
}


def share_of(name: str) -> float:
    entry = {key: value for key, value in entry_of(name).items() if key not in WEIGHT_KEYS}
    with torch.device("meta"):
        return convolution_share(build_expert({**entry, "channels": 1, "grid": [1, 1]}))


def weights_of(expert: nn.Module) -> list[torch.Tensor]:
    """Those where the two formats differ."""
    weights = [m.weight for m in expert.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    return [weight for weight in weights if weight.shape[1] > 1 and max(weight.shape[2:]) > 1]


@pytest.mark.parametrize("name", OF_CATALOGUE)
def test_what_is_convolutional_shows_in_its_layers(name):
    assert (share_of(name) >= SHARE) == OF_CATALOGUE[name]


@pytest.mark.full
def test_nothing_in_the_catalogue_is_near_the_line():
    shares = {name: share_of(name) for name in catalogue()}
    assert not {name: share for name, share in shares.items() if 0.5 * SHARE < share < 1.5 * SHARE}


def test_shares_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.Linear(8, 8), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1))
    assert convolution_share(network) == 2 / 4  # the first reads patches
    assert convolution_share(nn.Sequential(nn.ConvTranspose2d(8, 8, 4, 4), nn.Linear(8, 8))) == 0
    assert convolution_share(nn.Sequential()) == 0


@torch.no_grad()
@pytest.mark.parametrize("name", ENTRIES)
def test_grids_are_the_same_but_for_the_order_of_sums(name):
    """Float32, in units of a grid's root mean square; bit for bit where nothing is turned round."""
    expert = small_expert(name)
    size = expert.spec.preprocessing.size
    given = Preprocessing(size, expert.spec.preprocessing.mean, expert.spec.preprocessing.std)
    hub, pixels, seen = ExpertHub({name: expert}), smooth_pixels(expert), []
    before = hub(pixels, given)[name]
    hub.channels_last = True
    assert hub.convolutional_names == [name] * (name in CONVOLUTIONAL)
    expert.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    after = hub(pixels, given)[name]
    assert expert.channels_last == (name in CONVOLUTIONAL)
    assert seen[0].is_contiguous(memory_format=torch.channels_last) == expert.channels_last
    lying = [weight.is_contiguous(memory_format=torch.channels_last) for weight in weights_of(expert)]
    assert all(lying) if expert.channels_last else not any(lying)
    if expert.channels_last:
        assert (after - before).square().mean() < (1e-5**2) * before.square().mean()
    else:
        assert torch.equal(after, before)


def test_on_and_off_again_is_as_it_was():
    hub = ExpertHub({name: small_expert(name) for name in ("timm_resnet", "timm_vit")})
    state, strides = copy.deepcopy(hub.state_dict()), [p.stride() for p in hub.parameters()]
    for on in (True, True, False):
        hub.channels_last = on
        with torch.inference_mode():
            hub(tiny_towers.pixels(), GIVEN)
        assert not any(parameter.is_inference() for parameter in hub.parameters())
        assert all(torch.equal(tensor, state[key]) for key, tensor in hub.state_dict().items())
        assert ([p.stride() for p in hub.parameters()] == strides) != on
    assert not hub["timm_resnet"].channels_last


def test_it_outlasts_a_cast_and_a_copy():
    hub = ExpertHub({"timm_resnet": small_expert("timm_resnet")})
    hub.channels_last = True
    hub(tiny_towers.pixels(), GIVEN)
    for other in (copy.deepcopy(hub), copy.deepcopy(hub).to(torch.bfloat16)):
        assert other.channels_last
        assert other["timm_resnet"].channels_last
        assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights_of(other))


@torch.no_grad()
def test_a_saved_tower_knows_nothing_of_it(tiny_tower_yaml, tmp_path):
    tower = tiny_towers.wake(build_tower(tiny_tower_yaml))
    tokens = tower(tiny_towers.pixels()).last_hidden_state
    for light in (False, True):
        tower.save_pretrained(tmp_path / f"plain{light}", light=light)
    tower.experts.channels_last = True
    tower(tiny_towers.pixels())
    assert tower.experts["cnn"].channels_last
    for light in (False, True):
        tower.save_pretrained(tmp_path / f"last{light}", light=light)
        assert tiny_towers.hashes(tmp_path / f"last{light}") == tiny_towers.hashes(tmp_path / f"plain{light}")
    again = ToVEVisionModel.from_pretrained(tmp_path / "lastFalse")
    assert not again.experts.channels_last
    assert torch.equal(again(tiny_towers.pixels()).last_hidden_state, tokens)


@torch.no_grad()
def test_detach_and_attach_with_it(tiny_tower_yaml, tmp_path):
    tower = tiny_towers.wake(build_tower(tiny_tower_yaml))
    plain = tower(tiny_towers.pixels()).last_hidden_state
    tower.experts.channels_last = True
    tokens = tower(tiny_towers.pixels()).last_hidden_state
    tower.detach("cnn")
    tower.attach()
    assert torch.equal(tower(tiny_towers.pixels()).last_hidden_state, tokens)
    tower.detach("cnn")
    tower.experts.channels_last = False
    tower.attach()  # which was laid out otherwise when it went
    assert torch.equal(tower(tiny_towers.pixels()).last_hidden_state, plain)
    tower.detach("cnn")
    tower.save_pretrained(tmp_path)
    again = ToVEVisionModel.from_pretrained(tmp_path)
    again.experts.channels_last = True
    again.attach("cnn")  # read from where its weights came from
    assert torch.equal(again(tiny_towers.pixels()).last_hidden_state, tokens)
    assert again.experts["cnn"].channels_last


def test_weights_in_pieces_are_refused_by_name():
    expert = small_expert("timm_resnet")
    for parameter in expert.parameters():
        parameter.ds_id = 0
    hub = ExpertHub({"timm_resnet": expert})
    hub.channels_last = True
    with pytest.raises(UserError, match="expert `timm_resnet`: ZeRO-3 holds its weights in pieces.*use ZeRO-2"):
        hub(tiny_towers.pixels(), GIVEN)
    vit = small_expert("timm_vit")
    for parameter in vit.parameters():
        parameter.ds_id = 0
    set_channels_last(vit, True)  # there is nothing to lay out
    assert not vit.channels_last
