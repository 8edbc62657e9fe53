"""Depth experts: the map is transformers' `predicted_depth`, the features are what its head reads."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
)

from helpers.random_weights import lively
from tove_lvlm.config import ConfigError
from tove_lvlm.experts import build_expert, describe
from tove_lvlm.experts.schema import complete_fields
from tove_lvlm.storage import MissingWeightsError, WeightsError

SIZES = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
NECK = {"neck_hidden_sizes": [8, 8, 12, 12], "fusion_hidden_size": 8}
VIT = {**SIZES, "intermediate_size": 48}
BIT = {"embedding_size": 8, "hidden_sizes": [8, 16, 24], "depths": [1, 1, 1], "num_groups": 2}
HYBRID = {
    "is_hybrid": True,
    "reassemble_factors": [1, 1, 1, 0.5],
    "neck_hidden_sizes": [8, 16, 12, 12],
    "backbone_featmap_shape": [1, 24, 4, 4],
    "backbone_out_indices": [0, 1, 2, 3],
    "backbone_config": {
        **BIT,
        "model_type": "bit",
        "layer_type": "bottleneck",
        "global_padding": "same",
        "out_features": ["stage1", "stage2", "stage3"],
        "embedding_dynamic_padding": True,
    },
}
DINO = {**SIZES, "model_type": "dinov2", "image_size": 56, "patch_size": 14, "reshape_hidden_states": False}


def dpt() -> DPTForDepthEstimation:
    config = DPTConfig(**VIT, **NECK, image_size=64, patch_size=16, backbone_out_indices=[0, 1, 2, 3])
    return DPTForDepthEstimation(config)


def dpt_hybrid() -> DPTForDepthEstimation:
    return DPTForDepthEstimation(DPTConfig(**{**VIT, **NECK, "image_size": 64, "patch_size": 16, **HYBRID}))


def depth_anything() -> DepthAnythingForDepthEstimation:
    backbone = {**DINO, "out_indices": [1, 2, 3, 4]}
    return DepthAnythingForDepthEstimation(
        DepthAnythingConfig(backbone_config=backbone, reassemble_hidden_size=24, head_hidden_size=8, **NECK)
    )


MODELS = {"dpt": (dpt, 64), "dpt_hybrid": (dpt_hybrid, 64), "depth_anything": (depth_anything, 56)}


@pytest.fixture(params=MODELS)
def saved(request, tmp_path):
    """(kind, the library's model, its folder, image size)."""
    make, size = MODELS[request.param]
    model = lively(make())
    model.save_pretrained(tmp_path)
    DPTImageProcessor(size={"height": size, "width": size}).save_pretrained(tmp_path)
    if request.param != "depth_anything":  # as Intel's files are
        file, unit = tmp_path / "model.safetensors", "neck.fusion_stage.layers.0.residual_layer1."
        tensors = load_file(file)
        assert any(key.startswith(unit) for key in tensors)
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(unit)}
        save_file({**tensors, "dpt.pooler.dense.bias": torch.zeros(24)}, file)
    return request.param, model, tmp_path, size


def expert_of(folder, **fields):
    expert = build_expert(complete_fields({"name": "depth", "family": "depth", **fields}, str(folder), "test"))
    expert.load_pretrained(folder)
    return expert


@torch.no_grad()
def test_everything_is_read_from_the_folder_and_the_map_is_the_librarys(saved):
    kind, model, folder, size = saved
    expert = expert_of(folder)
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = model(pixels).predicted_depth
    assert expert.spec.preprocessing.size == size
    assert expert.spec.preprocessing.mean == (0.5, 0.5, 0.5)
    assert (expert.spec.channels, expert.spec.grid, expert.spec.output) == (1, (size, size), "map")
    assert torch.equal(expert(pixels), expected[:, None])
    assert expected.std() > 0
    low_high = expert.picture(expected[:, None]).flatten(1)
    assert (low_high.min(), low_high.max()) == (0, 255)
    for implementation in ("eager", "sdpa"):
        expert.use_attention(implementation)
        torch.testing.assert_close(expert(pixels), expected[:, None], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_features_are_what_the_head_reads(saved):
    kind, model, folder, size = saved
    expert = expert_of(folder, output="features")
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    grid = expert(pixels)
    assert tuple(grid.shape[1:]) == (expert.spec.channels, *expert.spec.grid)
    patches = (size // 14, size // 14) if kind == "depth_anything" else ()
    assert torch.equal(model.head([grid], *patches), model(pixels).predicted_depth)


def test_lacking_and_foreign_weights_are_named(saved):
    _, _, folder, _ = saved
    file = folder / "model.safetensors"
    tensors = load_file(file)
    save_file(
        {key: tensor for key, tensor in tensors.items() if key != "head.conv3.bias" and "head.4" not in key}, file
    )
    with pytest.raises(WeightsError, match=r"model\.safetensors` do not fit DepthEstimator: \d+ missing \(network\."):
        expert_of(folder)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="truncated"):
        expert_of(folder)
    file.unlink()
    with pytest.raises(MissingWeightsError, match="holds no weights"):
        expert_of(folder)


def test_sizes_that_do_not_fit_and_other_models_are_refused():
    fields = {"name": "depth", "family": "depth", "architecture": {"model_type": "depth_anything"}, "image_size": 336}
    assert describe(fields).grid == (336, 336)
    with pytest.raises(ConfigError, match=r"`image_size` 384 is not a multiple of the patch size 14.*378 or 392"):
        describe({**fields, "image_size": 384})
    with pytest.raises(ConfigError, match="no depth estimator `clip_vision_model`"):
        describe({**fields, "architecture": {"model_type": "clip_vision_model"}})
    glpn = {"model_type": "glpn", "hidden_sizes": [8, 8, 40, 8], "depths": [1, 1, 1, 1]}
    with pytest.raises(ConfigError, match="`glpn` is no depth estimator of the kind of DPT"):
        describe({**fields, "architecture": glpn})
