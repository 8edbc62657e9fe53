"""NormalBae against the library's own network."""

import types

import pytest
import torch

from helpers.random_weights import lively
from tove_lvlm.config import ConfigError
from tove_lvlm.experts import build_expert, describe
from tove_lvlm.experts.families.normal_bae import model as normal_bae
from tove_lvlm.storage import WeightsError


@pytest.fixture(scope="module")
def bae():
    """(the library's network, built as its own detector does, and ours)."""
    expert = build_expert({"name": "normals", "family": "normal_bae", "image_size": 64})
    nnet = type(expert.network)
    settings = types.SimpleNamespace(mode="client", sampling_ratio=0.4, importance_ratio=0.7, architecture="BN")
    return lively(nnet(settings), scale=0.03), expert


@torch.no_grad()
def test_normal_bae_is_the_librarys_network(bae, tmp_path):
    network, expert = bae
    file = tmp_path / "scannet.pt"
    torch.save({"model": {f"module.{key}": tensor for key, tensor in network.state_dict().items()}}, file)
    expert.load_pretrained(file)
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = network(pixels)[0][-1][:, :3]
    normals = expert(pixels)
    assert torch.equal(normals, expected)
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(1, 64, 64))
    assert normals.std() > 0.05
    features = build_expert({"name": "normals", "family": "normal_bae", "image_size": 64, "output": "features"})
    features.network = expert.network
    grid = features(pixels)
    assert tuple(grid.shape[1:]) == (features.spec.channels, *features.spec.grid) == (512, 8, 8)
    first = torch.nn.functional.normalize(network.decoder.out_conv_res8(grid)[:, :3], dim=1)
    torch.testing.assert_close(first, network(pixels)[0][0][:, :3])
    state = network.state_dict()
    state.pop("decoder.conv2.bias")
    torch.save({"model": state}, file)
    with pytest.raises(WeightsError, match=r"1 missing \(network\.decoder\.conv2\.bias"):
        expert.load_pretrained(file)


def test_normal_bae_without_its_package_and_odd_sizes(monkeypatch):
    fields = {"name": "normals", "family": "normal_bae", "image_size": 64}
    with pytest.raises(ConfigError, match="`image_size` 100 is not a multiple of the patch size 32"):
        describe({**fields, "image_size": 100})
    monkeypatch.setattr(normal_bae.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"tove-lvlm\[normals\]"):
        build_expert(fields)
