"""The low-level expert: its map is in the right place, its keys are the shipped ones."""

import torch

from helpers import tiny_towers
from tove_lvlm.experts import build_expert


def expert(**changes):
    torch.manual_seed(0)
    return build_expert({"name": "e", **tiny_towers.EXPERTS["normals"], **changes})


def test_keys_are_those_of_the_files():
    keys = expert().state_dict().keys()
    assert {key.split(".")[0] for key in keys} == {"vit", "head"}
    assert {"head.weight", "head.bias", "vit.pos_embed", "vit.patch_embed.proj.weight", "vit.norm.weight"} <= keys
    assert "vit.cls_token" not in keys


def test_the_map_lies_where_the_patches_are():
    """Token (row, column) fills its patch; inside, the head's outputs go channel by channel, row by row."""
    model = expert()
    model.vit = torch.nn.Identity()
    model.head = torch.nn.Identity()
    tokens = torch.arange(16.0).view(1, 16, 1) * 100 + torch.arange(48.0)
    grid = model.encode(tokens)
    assert grid.shape == (1, 3, 16, 16)
    for row, column, channel, y, x in [(0, 0, 0, 0, 0), (1, 2, 1, 3, 2), (3, 3, 2, 1, 3)]:
        value = (row * 4 + column) * 100 + channel * 16 + y * 4 + x
        assert grid[0, channel, row * 4 + y, column * 4 + x].item() == value


def test_features_are_the_normalised_tokens():
    model = expert(output="features")
    assert model.spec.channels == 24
    pixels = tiny_towers.pixels()
    grid = model.encode(pixels)
    tokens = model.vit.forward_features(pixels)
    torch.testing.assert_close(grid[1, :, 2, 3], tokens[1, 2 * 4 + 3])


def test_it_is_frozen():
    assert not any(p.requires_grad for p in expert().parameters())
