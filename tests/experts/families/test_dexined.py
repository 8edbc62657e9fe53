"""DexiNed against kornia's own detector."""

import pytest
import torch
from kornia.contrib import EdgeDetectorBuilder

from helpers.edge_experts import RGB, SIZE, expert_of, seen
from tove_lvlm import storage


@pytest.fixture(scope="module")
def dexined():
    """kornia's whole detector, its own preprocessing included."""
    torch.manual_seed(0)
    return EdgeDetectorBuilder.build("dexined", pretrained=False, image_size=SIZE).eval()


@torch.no_grad()
@pytest.mark.parametrize("whole", [False, True])
def test_dexined_is_kornias(dexined, whole, tmp_path):
    """Weights as kornia publishes them, a bare state dict in a .pth, or its detector's; mean, std and BGR are its."""
    network = dexined.model[1]
    torch.save((dexined.model if whole else network).state_dict(), tmp_path / "DexiNed_BIPED_10.pth")
    expert = expert_of("dexined")
    expert.load_pretrained(tmp_path / "DexiNed_BIPED_10.pth")
    expected = dexined.model(RGB)
    edges = expert(seen(expert))
    torch.testing.assert_close(edges, expected, atol=1e-5, rtol=1e-4)
    assert expected.std() > 1e-3
    assert torch.equal(expert.picture(edges)[..., 0].float(), (edges[:, 0] * 255).round())
    features = expert_of("dexined", output="features")
    features.load_pretrained(tmp_path / "DexiNed_BIPED_10.pth")
    grid = features(seen(expert))
    assert tuple(grid.shape[1:]) == (features.spec.channels, *features.spec.grid) == (256, 2, 2)
    sixth = network.up_block_6(grid, [SIZE, SIZE])
    torch.testing.assert_close(sixth, network.get_features(seen(expert).flip(1))[5])


def test_dexined_with_a_tensor_too_few(dexined, tmp_path):
    state = dexined.model[1].state_dict()
    state.pop("block_cat.conv.bias")
    torch.save(state, tmp_path / "d.pth")
    with pytest.raises(storage.WeightsError, match=r"d\.pth` do not fit DexiNed: 1 missing \(network\.block_cat"):
        expert_of("dexined").load_pretrained(tmp_path / "d.pth")
