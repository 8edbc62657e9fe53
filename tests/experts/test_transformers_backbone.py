"""Every kind of transformers' vision encoder: our grid is the library's own forward, reshaped."""

import pytest
import torch
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    SamVisionConfig,
    SamVisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from tove_lvlm.config import ConfigError
from tove_lvlm.experts import build_expert
from tove_lvlm.experts.schema import complete_fields
from tove_lvlm.storage import WeightsError

SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 16, "patch_size": 4}
MLP = {"intermediate_size": 48}
PIXELS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
MODELS = {
    "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**SIZES, **MLP)),
    "dinov2": lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZES, num_register_tokens=3)),
    "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**SIZES, **MLP)),
    "sam": lambda: SamVisionModel(SamVisionConfig(**SIZES, output_channels=12, window_size=2)),
}
PREFIX_TOKENS = {"clip": 1, "dinov2": 4, "siglip": 0}


def lively(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def expert_of(folder, **fields):
    entry = {"name": "x", "family": "transformers", **fields}
    expert = build_expert(complete_fields(entry, str(folder), "test"))
    expert.load_weights(folder)
    return expert


@pytest.mark.parametrize("kind", MODELS)
def test_grid_is_the_librarys_own_forward(kind, tmp_path):
    model = lively(MODELS[kind]())
    model.save_pretrained(tmp_path)
    expert = expert_of(tmp_path)
    with torch.no_grad():
        grid, expected = expert(PIXELS), model(PIXELS).last_hidden_state
    if kind != "sam":
        expected = expected[:, PREFIX_TOKENS[kind] :].transpose(1, 2).reshape(2, 24, 4, 4)
    assert grid.shape == (2, expert.spec.channels, 4, 4)
    assert torch.equal(grid, expected)
    assert not any(parameter.requires_grad for parameter in expert.parameters())


def test_earlier_layer(tmp_path):
    model = lively(MODELS["clip"]())
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        states = model(PIXELS, output_hidden_states=True).hidden_states
        grid = expert_of(tmp_path, layer=-2)(PIXELS)
    assert torch.equal(grid.flatten(2).transpose(1, 2), states[-2][:, 1:])


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_vision_part_of_a_whole_model(kind, tmp_path):
    text = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, **MLP, "vocab_size": 9}
    config, model = {"clip": (CLIPConfig, CLIPModel), "siglip": (SiglipConfig, SiglipModel)}[kind]
    whole = lively(model(config(text_config=text, vision_config={**SIZES, **MLP})))
    whole.save_pretrained(tmp_path)
    with torch.no_grad():
        grid = expert_of(tmp_path)(PIXELS)
        expected = whole.vision_model(PIXELS).last_hidden_state[:, PREFIX_TOKENS[kind] :]
    assert torch.equal(grid.flatten(2).transpose(1, 2), expected)


def test_missing_tensors_and_unknown_kinds_are_named(tmp_path):
    from safetensors.torch import load_file, save_file

    lively(MODELS["clip"]()).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    gone = next(key for key in tensors if "layers.2" in key)
    save_file({key: value for key, value in tensors.items() if key != gone}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing .*layers\.2"):
        expert_of(tmp_path)
    for kind in ("nonsense", "llama"):
        with pytest.raises(ConfigError, match=f"`{kind}`"):
            build_expert({"name": "x", "family": "transformers", "architecture": {"model_type": kind}})


def test_attention_switch_reaches_the_encoder(tmp_path):
    lively(MODELS["clip"]()).save_pretrained(tmp_path)
    expert = expert_of(tmp_path)
    with torch.no_grad():
        fused = expert(PIXELS)
        expert.use_attention("eager")
        assert expert.backbone.config._attn_implementation == "eager"
        torch.testing.assert_close(expert(PIXELS), fused, atol=1e-5, rtol=1e-4)
