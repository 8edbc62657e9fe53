"""The way of an expert's grid into CLIP's tokens, by hand."""

import math

import pytest
import torch
from torch import nn

from tove_lvlm.experts import ExpertSpec
from tove_lvlm.experts.preprocess import Preprocessing
from tove_lvlm.tower.transfer import MapStem, Transfer, resample


def spec(output: str = "features", channels: int = 2, size: int = 16) -> ExpertSpec:
    seen = Preprocessing(size, (0.5,) * 3, (0.5,) * 3)
    grid = (size, size)
    return ExpertSpec(name="e", family="timm", output=output, channels=channels, grid=grid, preprocessing=seen)


def transfer(zero_init: bool = False, **kwargs) -> Transfer:
    return Transfer(spec(**kwargs), side=2, width=3, hidden=1, stem_width=8, zero_init=zero_init)


def test_by_hand():
    layer = transfer()
    with torch.no_grad():
        layer.fc1.weight.copy_(torch.tensor([[2.0, 1.0]]))
        layer.fc1.bias.fill_(0.5)
        layer.fc2.weight.copy_(torch.tensor([[1.0], [-1.0], [2.0]]))
        layer.fc2.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
    # 2x2 cells, channels (high, low) or (low, high); LayerNorm makes them (1, -1) or (-1, 1).
    high = torch.tensor([[1.0, 0.0], [0.0, 1.0]]) * 1000
    grid = torch.stack([high, 1000 - high])[None]
    gelu = lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2)))  # noqa: E731
    up, down = gelu(2 - 1 + 0.5), gelu(-2 + 1 + 0.5)
    expected = [[h, -h, 2 * h + 1] for h in (up, down, down, up)]  # row by row, as CLIP's tokens
    torch.testing.assert_close(layer(grid)[0], torch.tensor(expected), atol=1e-4, rtol=0)


def test_zero_init_gives_exactly_zero_and_its_gradient_wakes_it():
    from tove_lvlm.tower.init import init_weights

    layer = transfer(zero_init=True)
    layer.apply(init_weights)
    tokens = layer(torch.randn(2, 2, 5, 5))
    assert torch.equal(tokens, torch.zeros(2, 4, 3))
    tokens.sum().backward()
    assert layer.fc2.weight.grad.abs().sum() > 0
    off = transfer(zero_init=False)
    off.apply(init_weights)
    assert off(torch.randn(2, 2, 5, 5)).abs().min() > 0


def test_resample_averages_when_it_shrinks_and_keeps_a_grid_that_fits():
    grid = torch.arange(16.0).view(1, 1, 4, 4)
    assert resample(grid, 4) is grid
    small = resample(grid, 2)
    # Antialiased bilinear: rows 0 and 1 weigh 3/7 each, row 2 weighs 1/7; so on for the columns and from the other end.
    weight = torch.tensor([3.0, 3.0, 1.0, 0.0]) / 7
    expected = (weight[:, None] * weight[None] * grid[0, 0]).sum()
    assert small[0, 0, 0, 0].item() == pytest.approx(expected.item(), abs=1e-5)
    large = resample(torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]]), 4)
    assert large[0, 0, 0].tolist() == pytest.approx([0.0, 0.25, 0.75, 1.0])
    assert resample(grid.to(torch.bfloat16), 2).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("map_size", "side", "result"), [(64, 8, 8), (16, 4, 4), (384, 24, 24), (512, 24, 32), (4, 8, 4)]
)
def test_stem_brings_a_map_near_the_token_grid(map_size, side, result):
    stem = MapStem(1, map_size, side, width=8)
    assert stem(torch.zeros(1, 1, map_size, map_size)).shape == (1, 8, result, result)
    assert sum(isinstance(layer, nn.Conv2d) for layer in stem) == 4
    assert not any("Norm" in type(layer).__name__ for layer in stem)


def test_stem_tells_the_level_of_a_flat_map():
    """What a depth map says of an even wall is its level; a stem that lost it would be blind to near and far."""
    from tove_lvlm.tower.init import init_weights

    torch.manual_seed(0)
    layer = Transfer(spec("map", channels=1), side=2, width=32, hidden=32, stem_width=64, zero_init=False)
    layer.apply(init_weights)
    near, far = layer(torch.full((1, 1, 16, 16), 0.1)), layer(torch.full((1, 1, 16, 16), 0.9))
    assert (near - far).norm() > 0.3 * near.norm()


def test_computes_in_its_own_dtype():
    layer = transfer().to(torch.bfloat16)
    assert layer(torch.randn(1, 2, 3, 3)).dtype == torch.bfloat16
