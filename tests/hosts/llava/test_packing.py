"""Frozen features as one tensor and back."""

import pytest
import torch

from tove_lvlm.hosts.llava.packing import pack, unpack
from tove_lvlm.tower.output import FrozenFeatures

# Neither grid divides the 4 x 4 tokens; the map has a full-resolution side beyond what float16 counts exactly.
GRIDS = {"map": (1, 37, 3001), "deep": (5, 3, 3), "gone": (2, 4, 4)}
CHANNELS = {name: shape[0] for name, shape in GRIDS.items()}


def features(batch: int = 3, names: tuple[str, ...] = ("map", "deep"), dtype=torch.float32) -> FrozenFeatures:
    generator = torch.Generator().manual_seed(0)
    grids = {name: torch.randn(batch, *GRIDS[name], generator=generator).to(dtype) for name in names}
    t_clip = torch.randn(batch, 16, 6, generator=generator).to(dtype)
    return FrozenFeatures(t_clip, grids, weight_B=torch.arange(batch) != 1)


def assert_same(left: FrozenFeatures, right: FrozenFeatures) -> None:
    assert torch.equal(left.t_clip_BND, right.t_clip_BND)
    assert torch.equal(left.weight_B, right.weight_B)
    assert list(left.grids) == list(right.grids)
    for name in left.grids:
        assert torch.equal(left.grids[name], right.grids[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("names", [("map", "deep"), ("map", "deep", "gone"), ("gone",), ()])
def test_bit_for_bit(dtype, names):
    frozen = features(names=names, dtype=dtype)
    packed = pack(frozen, list(GRIDS))
    assert packed.dtype == dtype
    assert packed.shape[:2] == (3, 16)
    assert_same(unpack(packed, CHANNELS, width=6), frozen)


def test_the_order_in_memory_comes_along():
    frozen = features()
    frozen.grids["deep"] = frozen.grids["deep"].to(memory_format=torch.channels_last)
    got = unpack(pack(frozen, list(GRIDS)), CHANNELS, width=6)
    assert_same(got, frozen)
    assert {name: grid.stride() for name, grid in got.grids.items()} == {
        name: grid.stride() for name, grid in frozen.grids.items()
    }


def test_nothing_is_wasted():
    frozen = features(names=("deep",))
    numbers = 16 * 6 + 5 * 3 * 3 + 6 + 5 * len(GRIDS)
    assert pack(frozen, list(GRIDS)).shape[-1] == -(-numbers // 16)


def test_joining_splitting_and_casting_up_on_the_way():
    frozen = features(batch=4, dtype=torch.float16)
    packed = pack(frozen, list(GRIDS))
    parts = torch.split(torch.cat([packed[2:], packed[:2]]).float(), [1, 3])
    got = unpack(parts[1], CHANNELS, width=6)
    order = [3, 0, 1]
    grids = {name: grid[order].float() for name, grid in frozen.grids.items()}
    assert_same(got, FrozenFeatures(frozen.t_clip_BND[order].float(), grids, frozen.weight_B[order]))


def test_what_is_not_packed_is_refused():
    packed = pack(features(), list(GRIDS))
    message = "do not come from its own ToVE tower of 3 experts"
    for wrong in (torch.randn(2, 16, 6), packed.mean(1, keepdim=True), packed[0], packed[:0]):
        with pytest.raises(ValueError, match=message):
            unpack(wrong, CHANNELS, width=6)
    with pytest.raises(ValueError, match="tower of 2 experts"):
        unpack(packed, {"map": 1, "deep": 5}, width=6)
    with pytest.raises(ValueError, match="header promises"):
        unpack(packed, CHANNELS | {"map": 2}, width=6)
    with pytest.raises(ValueError, match="header promises"):
        unpack(packed, CHANNELS, width=12)
