"""The embedding expert: any timm network, tokens in their place, weights complete."""

import pytest
import timm
import torch

from helpers import tiny_towers
from tove_lvlm import storage
from tove_lvlm.experts import build_expert, describe
from tove_lvlm.storage import WeightsError

VIT = {"embed_dim": 24, "depth": 2, "num_heads": 2}
SMALL = {
    "vit_tiny_patch16_224": {"img_size": 32, **VIT},
    "vit_small_patch14_reg4_dinov2": {"img_size": 28, **VIT},
    "vit_small_patch16_dinov3": {"img_size": 32, **VIT},
    "vit_base_patch16_siglip_gap_224": {"img_size": 32, **VIT},
    "vit_base_patch16_siglip_224": {"img_size": 32, **VIT},
    "eva02_tiny_patch14_224": {"img_size": 28, **VIT},
    "beit_base_patch16_224": {"img_size": 32, **VIT},
    "deit3_small_patch16_224": {"img_size": 32, **VIT},
    "samvit_base_patch16": {"img_size": 32, "global_attn_indexes": (), **VIT},
    "naflexvit_base_patch16_gap": VIT,
    "swin_tiny_patch4_window7_224": {"img_size": 28, "depths": [2, 1], "embed_dim": 12, "num_heads": [2, 2]},
    "hiera_tiny_224": {"img_size": (64, 64), "embed_dim": 24, "num_heads": 1, "stages": (1, 1, 1, 1)},
    "convnext_atto": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
    "resnet18": tiny_towers.CNN_ARGS,
    "mobilenetv3_small_050": {},
    "pvt_v2_b0": {"depths": [1, 1, 1, 1]},
    "test_efficientnet": {},
}
BEFORE_THE_HEAD = ("test_efficientnet",)
"""Their features hold one convolution more, which timm's feature interface counts to the head."""


def fields(architecture: str) -> dict:
    args = SMALL[architecture]
    size = args.get("img_size", 32)
    size = size if isinstance(size, int) else size[0]
    return {"name": "e", "family": "timm", "architecture": architecture, "model_args": args, "image_size": size}


@pytest.mark.parametrize("architecture", SMALL)
def test_a_grid_from_every_kind_of_network_is_timms_own_features(architecture, tmp_path):
    """From a file that timm wrote: the whole model, its classifier included."""
    torch.manual_seed(0)
    whole = timm.create_model(architecture, num_classes=7, **SMALL[architecture]).eval()
    storage.save_tensors(tmp_path / "model.safetensors", whole.state_dict())
    expert = build_expert(fields(architecture))
    expert.load_pretrained(tmp_path)
    size = expert.spec.preprocessing.size
    pixels_B3HW = torch.randn(2, 3, size, size)
    with torch.no_grad():
        grid, own = expert(pixels_B3HW), whole.forward_features(pixels_B3HW)
    assert tuple(grid.shape[1:]) == (expert.spec.channels, *expert.spec.grid)
    assert not any(p.requires_grad for p in expert.parameters())
    if architecture in BEFORE_THE_HEAD:
        return
    if isinstance(own, dict):
        own = own["patches"]
    if own.ndim == 3:
        own = own[:, getattr(whole, "num_prefix_tokens", 0) :].transpose(1, 2).unflatten(2, grid.shape[2:])
    elif own.shape != grid.shape:
        own = own.permute(0, 3, 1, 2)
    torch.testing.assert_close(grid, own, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_grid_that_is_not_square():
    args = {"dynamic_img_size": True, **SMALL["vit_tiny_patch16_224"]}
    expert = build_expert({**fields("vit_tiny_patch16_224"), "model_args": args})
    pixels_B3HW = torch.randn(1, 3, 32, 64)
    tokens_BND = expert.backbone.forward_features(pixels_B3HW)
    grid = expert(pixels_B3HW)
    assert grid.shape == (1, 24, 2, 4)
    assert torch.equal(grid[0, :, 1, 2], tokens_BND[0, 1 + 1 * 4 + 2])


@torch.no_grad()
def test_sam_takes_another_image_size_with_the_weights_that_it_has(tmp_path):
    """Its positions keep the file's size and are resampled image by image, as timm does."""
    args = {"global_attn_indexes": (1,), "window_size": 2, **VIT}
    torch.manual_seed(0)
    own = timm.create_model("samvit_base_patch16", num_classes=0, **args).eval()
    torch.nn.init.normal_(own.pos_embed)
    storage.save_tensors(tmp_path / "model.safetensors", own.state_dict())
    entry = {"name": "e", "family": "timm", "architecture": "samvit_base_patch16", "model_args": args}
    expert = build_expert({**entry, "image_size": 64})
    expert.load_pretrained(tmp_path)
    pixels_B3HW = torch.randn(1, 3, 64, 64)
    assert expert.spec.grid == (4, 4)
    assert torch.equal(expert(pixels_B3HW), own.forward_features(pixels_B3HW))


def test_class_and_register_tokens_are_dropped_and_tokens_keep_their_place():
    torch.manual_seed(0)
    expert = build_expert({"name": "e", **tiny_towers.EXPERTS["shapes"]})
    backbone = expert.backbone
    assert backbone.num_prefix_tokens == 3
    tokens = backbone.forward_features(tiny_towers.pixels())
    grid = expert(tiny_towers.pixels())
    assert grid.shape == (2, 24, 4, 4)
    torch.testing.assert_close(grid[1, :, 2, 1], tokens[1, 3 + 2 * 4 + 1])


def test_out_index_takes_an_earlier_stage():
    entry = {**fields("resnet18"), "out_index": 2}
    torch.manual_seed(0)
    expert, run = build_expert(entry), []
    pixels = torch.rand(1, 3, 32, 32)
    expected = expert.backbone.forward_intermediates(pixels, intermediates_only=True)[2]
    for name in ("layer1", "layer2", "layer3"):
        getattr(expert.backbone, name).register_forward_hook(lambda *_, name=name: run.append(name))
    grid = expert(pixels)
    assert tuple(grid.shape) == (1, expert.spec.channels, 4, 4)
    assert torch.equal(grid, expected)
    assert run == ["layer1", "layer2"], "the stages behind it are not run"


def test_a_classifier_in_the_file_is_left_out_and_nothing_else(tmp_path):
    torch.manual_seed(0)
    expert = build_expert(fields("resnet18"))
    state = {k.removeprefix("backbone."): torch.rand_like(t.float()) for k, t in expert.state_dict().items()}
    file = tmp_path / "model.safetensors"
    storage.save_tensors(file, {**state, "fc.weight": torch.zeros(10, 16), "fc.bias": torch.zeros(10)})
    expert.load_pretrained(tmp_path)
    assert torch.equal(expert.backbone.conv1[0].weight, state["conv1.0.weight"])
    storage.save_tensors(file, {**state, "neck.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"1 unexpected \(backbone.neck.weight\)"):
        expert.load_pretrained(tmp_path)


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
    large.load_pretrained(tmp_path)
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
