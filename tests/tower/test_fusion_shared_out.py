"""`fusion.transfer: shared_out`: each expert's first layer is its own, and the second is one for all."""

import json

import pytest
import torch

from helpers import tiny_towers
from tove_lvlm import ToVEVisionConfig, ToVEVisionModel, build_tower
from tove_lvlm.config import ConfigError
from tove_lvlm.config.tower import FusionConfig
from tove_lvlm.experts import ExpertSpec
from tove_lvlm.experts.preprocess import Preprocessing
from tove_lvlm.tower.fusion import ToVEFusion

SEEN = Preprocessing(16, (0.5,) * 3, (0.5,) * 3)
CHANNELS = {"a": 3, "b": 5, "c": 4}
SPECS = [
    ExpertSpec(name=name, family="timm", output="features", channels=channels, grid=(4, 4), preprocessing=SEEN)
    for name, channels in CHANNELS.items()
]
WIDTH, HIDDEN = 6, 7


def fusion(transfer: str = "shared_out", **settings) -> ToVEFusion:
    torch.manual_seed(0)
    settings = {"mlp_hidden": HIDDEN, "expert_dropout": 0.0, "zero_init": False, "transfer": transfer, **settings}
    return ToVEFusion(SPECS, width=WIDTH, side=4, settings=FusionConfig(**settings)).eval()


def inputs(names: str = "abc"):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(2, 16, WIDTH, generator=generator)
    grids = {name: torch.randn(2, channels, 4, 4, generator=generator) for name, channels in CHANNELS.items()}
    return tokens, {name: grids[name] for name in names}, torch.ones(2)


@torch.no_grad()
def test_by_hand():
    module = fusion()
    tokens, grids, weight = inputs()
    output = module(tokens, grids, weight)
    expected = tokens.clone()
    unit = tokens.square().mean(-1, keepdim=True).sqrt()
    for index, name in enumerate("abc"):
        layer = module.transfers[name]
        hidden = layer.act(layer.fc1(layer.norm(grids[name].flatten(2).transpose(1, 2))))
        e = hidden @ module.shared_out.weight.T + module.shared_out.bias
        expected += output.gate_BNK[..., index, None] * unit * e
    torch.testing.assert_close(output.t_fuse_BND, expected)


def test_what_it_holds():
    """K experts' own second layers become one."""
    own, shared = (sum(p.numel() for p in fusion(kind).parameters()) for kind in ("separate", "shared_out"))
    assert own - shared == (len(SPECS) - 1) * (HIDDEN * WIDTH + WIDTH)
    assert not [name for name, _ in fusion().transfers.named_parameters() if "fc2" in name]


def test_all_experts_train_the_shared_layer():
    module = fusion(zero_init=True)
    tokens, grids, weight = inputs()
    out = module(tokens, grids, weight).t_fuse_BND
    assert torch.equal(out, tokens), "at its start the fusion gives CLIP's tokens, bit for bit"
    gradients = []
    for names in ("a", "b", "abc"):
        module.zero_grad()
        module(tokens, {name: grids[name] for name in names}, weight).t_fuse_BND.sum().backward()
        gradients.append(module.shared_out.weight.grad.clone())
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    assert not torch.equal(gradients[0], gradients[1])


@torch.no_grad()
def test_a_detached_expert_says_nothing():
    module = fusion()
    tokens, grids, weight = inputs("ac")
    output = module(tokens, grids, weight)
    assert output.gate_BNK[..., 1].eq(0).all()
    before = output.t_fuse_BND
    module.transfers["b"].fc1.weight.add_(1.0)
    assert torch.equal(module(tokens, grids, weight).t_fuse_BND, before)


@torch.no_grad()
def test_without_an_expert_nothing_is_added():
    tokens, grids, weight = inputs("")
    module = fusion()
    output = module(tokens, grids, weight)
    assert torch.equal(output.t_fuse_BND, tokens)
    assert module.strengths(tokens, grids, output.gate_BNK).eq(0).all()


@pytest.fixture
def tower(tmp_path):
    return tiny_towers.wake(build_tower(tiny_towers.make_tower_yaml(tmp_path / "yaml", transfer="shared_out")))


@pytest.mark.parametrize("light", [False, True])
@torch.no_grad()
def test_saved_and_loaded(tower, tmp_path, light):
    expected = tower(tiny_towers.pixels()).last_hidden_state
    tower.save_pretrained(tmp_path / "saved", light=light)
    again = ToVEVisionModel.from_pretrained(tmp_path / "saved")
    assert again.config.fusion["transfer"] == "shared_out"
    assert torch.equal(again(tiny_towers.pixels()).last_hidden_state, expected)


@torch.no_grad()
def test_a_tower_saved_before_the_key_shares_nothing(tmp_path):
    yaml = tiny_towers.make_tower_yaml(tmp_path / "yaml", transfer="separate")
    before = tiny_towers.wake(build_tower(yaml))
    before.save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / "config.json"
    config = json.loads(file.read_text())
    del config["fusion"]["transfer"]
    file.write_text(json.dumps(config))
    again = ToVEVisionModel.from_pretrained(tmp_path / "saved")
    assert again.config.fusion["transfer"] == "separate"
    images = tiny_towers.pixels()
    assert torch.equal(again(images).last_hidden_state, before(images).last_hidden_state)


def test_another_value_is_refused():
    with pytest.raises(ConfigError, match=r"`transfer` is 'own'.*valid: shared_out \| shared \| separate"):
        ToVEVisionConfig(clip_config=tiny_towers.CLIP_ARCHITECTURE, fusion={"transfer": "own"})
