"""The embedding expert: any timm network, tokens in their place, weights complete."""

import pytest
import tiny
import torch

from tove_lvlm import storage
from tove_lvlm.experts import build_expert, describe
from tove_lvlm.storage import WeightsError

SMALL = {
    "vit_tiny_patch16_224": {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2},
    "vit_small_patch14_reg4_dinov2": {"img_size": 28, "embed_dim": 24, "depth": 2, "num_heads": 2},
    "eva02_tiny_patch14_224": {"img_size": 28, "embed_dim": 24, "depth": 2, "num_heads": 2},
    "vit_base_patch16_siglip_224": {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2},
    "samvit_base_patch16": {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2, "global_attn_indexes": ()},
    "swin_tiny_patch4_window7_224": {"img_size": 28, "depths": [2, 1], "embed_dim": 12, "num_heads": [2, 2]},
    "convnext_atto": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
    "resnet18": tiny.CNN_ARGS,
    "efficientnet_b0": {},
}


def fields(architecture: str) -> dict:
    args = SMALL[architecture]
    size = args.get("img_size", 32)
    return {"name": "e", "family": "timm", "architecture": architecture, "model_args": args, "image_size": size}


@pytest.mark.parametrize("architecture", SMALL)
def test_a_grid_from_every_kind_of_network(architecture):
    torch.manual_seed(0)
    expert = build_expert(fields(architecture))
    size = expert.spec.preprocessing.size
    with torch.no_grad():
        grid = expert(torch.randn(2, 3, size, size))
    assert grid.ndim == 4
    assert grid.shape[1] == expert.spec.channels == describe(fields(architecture)).channels
    assert grid.shape[2] == grid.shape[3] >= 1
    assert not any(p.requires_grad for p in expert.parameters())


def test_class_and_register_tokens_are_dropped_and_tokens_keep_their_place():
    torch.manual_seed(0)
    expert = build_expert({"name": "e", **tiny.EXPERTS["shapes"]})
    backbone = expert.backbone
    assert backbone.num_prefix_tokens == 3
    tokens = backbone.forward_features(tiny.pixels())
    grid = expert(tiny.pixels())
    assert grid.shape == (2, 24, 4, 4)
    torch.testing.assert_close(grid[1, :, 2, 1], tokens[1, 3 + 2 * 4 + 1])


def test_out_index_takes_an_earlier_stage():
    entry = {**fields("resnet18"), "out_index": 2}
    expert = build_expert(entry)
    grid = expert(torch.zeros(1, 3, 32, 32))
    assert tuple(grid.shape) == (1, expert.spec.channels, 4, 4)


def test_a_classifier_in_the_file_is_left_out_and_nothing_else(tmp_path):
    torch.manual_seed(0)
    expert = build_expert(fields("resnet18"))
    state = {k.removeprefix("backbone."): torch.rand_like(t.float()) for k, t in expert.state_dict().items()}
    file = tmp_path / "model.safetensors"
    storage.save_tensors(file, {**state, "fc.weight": torch.zeros(10, 16), "fc.bias": torch.zeros(10)})
    expert.load_weights(tmp_path)
    assert torch.equal(expert.backbone.conv1[0].weight, state["conv1.0.weight"])
    storage.save_tensors(file, {**state, "neck.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"1 unexpected \(backbone.neck.weight\)"):
        expert.load_weights(tmp_path)


def test_a_norm_that_the_network_does_have_is_not_taken_for_a_head():
    """`fc_norm` is a head's in some networks and the final norm in others."""
    entry = fields("vit_tiny_patch16_224")
    entry["model_args"] = {**entry["model_args"], "global_pool": "avg", "class_token": False}
    expert = build_expert(entry)
    assert "fc_norm.weight" in expert.backbone.state_dict()
    kept = expert.adapt_weights({"fc_norm.weight": torch.ones(24), "head.weight": torch.ones(1)})
    assert kept.keys() == {"backbone.fc_norm.weight"}


def test_weights_of_another_image_size_get_their_positions_resampled(tmp_path):
    torch.manual_seed(0)
    small = build_expert(fields("vit_tiny_patch16_224"))  # 2x2 patches and a class token
    state = {key.removeprefix("backbone."): torch.randn_like(t) for key, t in small.state_dict().items()}
    plane = torch.tensor([0.0, 1.0, 2.0, 3.0])
    state["pos_embed"][0, 1:] = plane[:, None]
    storage.save_tensors(tmp_path / "model.safetensors", state)
    entry = fields("vit_tiny_patch16_224")
    large = build_expert({**entry, "image_size": 64, "model_args": {**entry["model_args"], "img_size": 64}})
    large.load_weights(tmp_path)
    positions = large.backbone.pos_embed[0, :, 0]
    assert positions[0].item() == pytest.approx(state["pos_embed"][0, 0, 0].item())
    grid = positions[1:].view(4, 4)
    assert grid.mean().item() == pytest.approx(1.5, abs=1e-4)
    assert (grid.diff(dim=0) > 0).all()
    assert (grid.diff(dim=1) > 0).all()
    assert torch.equal(large.backbone.blocks[0].mlp.fc1.weight, state["blocks.0.mlp.fc1.weight"])


def test_an_image_size_that_the_network_cannot_take():
    entry = {**fields("vit_tiny_patch16_224"), "image_size": 48}
    with pytest.raises(ValueError, match="expert `e`: timm's `vit_tiny_patch16_224` cannot .* `image_size` 48"):
        describe(entry)
