"""t_fuse = t_clip + sum_k g_k e_k, and that one positional call is enough for a wrapper."""

import pytest
import torch
from torch import nn

from tove_lvlm.config.tower import FusionConfig
from tove_lvlm.experts import ExpertSpec
from tove_lvlm.experts.preprocess import Preprocessing
from tove_lvlm.tower.fusion import ToVEFusion

SEEN = Preprocessing(16, (0.5,) * 3, (0.5,) * 3)
SPECS = [
    ExpertSpec(name=name, family="timm", output="features", channels=2, grid=(4, 4), preprocessing=SEEN)
    for name in ("a", "b", "c")
]


class Constant(nn.Module):
    """Stands in for a transfer: e_k is one number everywhere."""

    def __init__(self, value: float):
        super().__init__()
        self.value = value

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        return torch.full((1, 4, 2), self.value)


def fusion(**settings) -> ToVEFusion:
    """Gate (1/6, 2/6, 3/6) for every token; e = 6, 60, 600."""
    settings = {"transfer": "separate", "expert_dropout": 0, **settings}
    module = ToVEFusion(SPECS, width=2, side=2, settings=FusionConfig(**settings))
    with torch.no_grad():
        module.gate.fc2.weight.zero_()
        module.gate.fc2.bias.copy_(torch.tensor([1.0, 2.0, 3.0]).log())
    for name, value in zip("abc", (6.0, 60.0, 600.0), strict=True):
        module.transfers[name] = Constant(value)
    return module


GRIDS = {name: torch.zeros(1, 2, 2, 2) for name in "abc"}
CLIP = torch.randn(1, 4, 2, generator=torch.Generator().manual_seed(0))
UNIT = ((CLIP[..., :1] ** 2 + CLIP[..., 1:] ** 2) / 2).sqrt()  # a transfer of 1 adds as much as the token has


def test_transfer_by_hand():
    output = fusion()(CLIP, GRIDS, torch.ones(1))
    torch.testing.assert_close(output.t_fuse_BND, CLIP + UNIT * (1 + 20 + 300), atol=1e-4, rtol=0)
    mass = torch.tensor([1 / 6, 2 / 6, 3 / 6])
    torch.testing.assert_close(output.gate_BNK, mass.expand(1, 4, 3))
    assert output.balance.item() == pytest.approx(mass.var(unbiased=False).item() * 9, abs=1e-6)


def test_scale_and_terms_by_hand():
    module = fusion(transfer_scale=0.5)
    output = module(CLIP, GRIDS, torch.ones(1))
    terms = module.terms(CLIP, GRIDS, output.gate_BNK)
    assert list(terms) == ["a", "b", "c"]
    for name, value in zip("abc", (1.0, 20.0, 300.0), strict=True):
        torch.testing.assert_close(terms[name], (0.5 * UNIT * value).expand(1, 4, 2), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(output.t_fuse_BND, CLIP + sum(terms.values()), atol=1e-4, rtol=0)


def test_without_a_scale_terms_are_added_as_they_are():
    found = fusion(transfer_scale=None)(CLIP, GRIDS, torch.ones(1)).t_fuse_BND
    torch.testing.assert_close(found, CLIP + 1 + 20 + 300, atol=1e-4, rtol=0)


def test_a_larger_clip_gets_larger_terms():
    """A CLIP whose features are 7 times as large gives the same picture, 7 times as large."""
    one, seven = (fusion()(CLIP * factor, GRIDS, torch.ones(1)).t_fuse_BND for factor in (1, 7))
    torch.testing.assert_close(seven, 7 * one, atol=1e-3, rtol=1e-5)


def test_detached_by_hand():
    output = fusion()(CLIP, {name: GRIDS[name] for name in "ac"}, torch.ones(1))
    torch.testing.assert_close(output.t_fuse_BND, CLIP + UNIT * (6 / 4 + 600 * 3 / 4), atol=1e-4, rtol=0)
    torch.testing.assert_close(output.gate_BNK, torch.tensor([0.25, 0.0, 0.75]).expand(1, 4, 3))


def test_none_attached_returns_clip_itself():
    output = fusion()(CLIP, {}, torch.ones(1))
    assert output.t_fuse_BND is CLIP
    assert torch.equal(output.gate_BNK, torch.zeros(1, 4, 3))
    assert output.balance.item() == 0


def test_peft_can_wrap_it():
    from peft.utils import ModulesToSaveWrapper

    module = fusion()
    wrapper = ModulesToSaveWrapper(module, "default")
    expected = module(CLIP, GRIDS, torch.ones(1))
    found = wrapper(CLIP, GRIDS, torch.ones(1))
    assert torch.equal(found.t_fuse_BND, expected.t_fuse_BND)


def test_float32_masters_under_a_bf16_clip_keep_clips_dtype():
    module = ToVEFusion(SPECS, width=2, side=2, settings=FusionConfig(zero_init=False))
    grids = {name: grid.to(torch.bfloat16) for name, grid in GRIDS.items()}
    output = module(CLIP.to(torch.bfloat16), grids, torch.ones(1))
    assert output.t_fuse_BND.dtype == torch.bfloat16
