"""Every kind of transformers' vision encoder: our grid is the library's own forward, reshaped."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    RadioConfig,
    RadioModel,
    SamVisionConfig,
    SamVisionModel,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

from tove_lvlm import storage
from tove_lvlm.config import ConfigError
from tove_lvlm.experts import build_expert
from tove_lvlm.experts.schema import complete_fields
from tove_lvlm.storage import WeightsError

SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 16, "patch_size": 4}
MLP = {"intermediate_size": 48}
PIXELS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
MODELS = {
    "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**SIZES, **MLP)),
    "dinov2_plain": lambda: Dinov2Model(Dinov2Config(**SIZES)),
    "dinov2": lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZES, num_register_tokens=3)),
    "dinov3": lambda: DINOv3ViTModel(DINOv3ViTConfig(**SIZES, **MLP, num_register_tokens=2)),
    "vit": lambda: ViTModel(ViTConfig(**SIZES, **MLP), add_pooling_layer=False),
    "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**SIZES, **MLP)),
    "radio": lambda: RadioModel(RadioConfig(**SIZES, max_img_size=32)),
    "sam": lambda: SamVisionModel(SamVisionConfig(**SIZES, output_channels=12, window_size=2)),
}
PREFIX_TOKENS = {"clip": 1, "dinov2_plain": 1, "dinov2": 4, "dinov3": 3, "vit": 1, "siglip": 0, "radio": 10}


def lively(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def expert_of(folder, **fields):
    entry = {"name": "x", "family": "transformers", **fields}
    expert = build_expert(complete_fields(entry, str(folder), "test"))
    expert.load_pretrained(folder)
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


@pytest.mark.parametrize("kind", PREFIX_TOKENS)
def test_another_image_size_is_the_librarys_own_resampling(kind, tmp_path):
    model = lively(MODELS[kind]())
    model.save_pretrained(tmp_path)
    larger = torch.randn(1, 3, 24, 24)
    options = {"interpolate_pos_encoding": True} if kind in ("clip", "vit", "siglip") else {}
    with torch.no_grad():
        grid = expert_of(tmp_path, image_size=24)(larger)
        expected = model(larger, **options).last_hidden_state[:, PREFIX_TOKENS[kind] :]
    assert grid.shape == (1, 24, 6, 6)
    assert torch.equal(grid.flatten(2).transpose(1, 2), expected)


def test_sams_positions_are_resampled_when_they_are_read(tmp_path):
    model = lively(SamVisionModel(SamVisionConfig(**SIZES, output_channels=12, window_size=0)))
    with torch.no_grad():
        encoder = model.vision_encoder
        encoder.pos_embed.copy_(torch.arange(4.0)[None, :, None, None].expand_as(encoder.pos_embed))
        for layer in encoder.layers:
            layer.attn.rel_pos_h.copy_(torch.arange(7.0)[:, None].expand_as(layer.attn.rel_pos_h))
    model.save_pretrained(tmp_path)
    expert = expert_of(tmp_path, image_size=32)
    large = expert.backbone.vision_encoder
    assert expert.spec.grid == (8, 8)
    rows_8 = large.pos_embed[0, :, 0, 0]
    assert rows_8.mean().item() == pytest.approx(1.5, abs=1e-4)
    assert (rows_8.diff() > 0).all()
    torch.testing.assert_close(large.pos_embed[0, :, 3, 5], rows_8)
    attention = encoder.layers[0].attn
    own = attention.get_rel_pos(8, 8, attention.rel_pos_h)  # what SAM itself makes of the table for another size
    wide = large.layers[0].attn
    torch.testing.assert_close(wide.get_rel_pos(8, 8, wide.rel_pos_h), own)
    assert torch.isfinite(expert(torch.randn(1, 3, 32, 32))).all()


@pytest.mark.parametrize("size", [16, 24])
def test_siglip_2_of_any_image_size(size, tmp_path):
    """Its NaFlex encoder takes patches; they are cut as its own image processor cuts them."""
    from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

    sizes = {key: value for key, value in SIZES.items() if key != "image_size"}
    model = lively(Siglip2VisionModel(Siglip2VisionConfig(**sizes, **MLP, num_patches=16)))
    model.save_pretrained(tmp_path)
    pixels_3HW, side = torch.randn(3, size, size), size // 4
    flat_NP = torch.as_tensor(convert_image_to_patches(pixels_3HW.numpy(), 4))
    with torch.no_grad():
        expected = model(
            flat_NP[None], pixel_attention_mask=torch.ones(1, side * side), spatial_shapes=torch.tensor([[side, side]])
        ).last_hidden_state
        grid = expert_of(tmp_path, image_size=size)(pixels_3HW[None])
    assert grid.shape == (1, 24, side, side)
    torch.testing.assert_close(grid.flatten(2).transpose(1, 2), expected, atol=1e-5, rtol=1e-4)


def test_the_size_that_it_was_trained_at_need_not_be_a_multiple_of_the_patch(tmp_path):
    odd = SIZES | {"image_size": 18}
    lively(SiglipVisionModel(SiglipVisionConfig(**odd, **MLP))).save_pretrained(tmp_path)
    assert expert_of(tmp_path).spec.grid == (4, 4)
    with pytest.raises(ConfigError, match="`image_size` 22 is not a multiple of the patch size 4 .* nearest: 20 or 24"):
        expert_of(tmp_path, image_size=22)


@pytest.mark.parametrize("layer", [0, 1, -2, -1])
@pytest.mark.parametrize("kind", MODELS)
def test_earlier_layer_and_none_behind_it_is_run(kind, layer, tmp_path):
    model = lively(MODELS[kind]())
    model.save_pretrained(tmp_path)
    expert = expert_of(tmp_path, layer=layer)
    with torch.no_grad():
        expected = model(PIXELS, output_hidden_states=True).hidden_states[layer]
        with FlopCounterMode(display=False) as ours:
            grid = expert(PIXELS)
        with FlopCounterMode(display=False) as all_layers:
            model(PIXELS)
    if kind == "sam":
        expected = expected.permute(0, 3, 1, 2)
    else:
        expected = expected[:, PREFIX_TOKENS[kind] :].transpose(1, 2).reshape(2, 24, 4, 4)
    assert torch.equal(grid, expected)
    share = ours.get_total_flops() / all_layers.get_total_flops()
    assert share == pytest.approx((layer % 4) / 3, abs=0.15), "of three layers"
    assert expert.backbone.state_dict().keys() >= {key for key in model.state_dict() if "layer" in key}


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


@torch.no_grad()
def test_a_file_of_radio_gives_the_same_in_timm_and_in_transformers(tmp_path):
    """NVIDIA's own names but for the layer scale's; transformers' network normalises its images itself, timm's not."""
    lively(RadioModel(RadioConfig(**SIZES, mlp_ratio=2.0, max_img_size=16))).save_pretrained(tmp_path)
    ours = expert_of(tmp_path)
    scales = {"layer_scale1.lambda1": "ls1.grandma", "layer_scale2.lambda1": "ls2.grandma"}
    tensors = storage.load_tensors(tmp_path)
    for saved, own in scales.items():
        tensors = {key.replace(saved, own): tensor for key, tensor in tensors.items()}
    storage.save_tensors(tmp_path / "own.safetensors", tensors)
    args = {"patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 2, "mlp_ratio": 2, "reg_tokens": 9}
    entry = {"architecture": "vit_base_patch16_radio_v3", "image_size": 16, "model_args": args}
    pixels = torch.rand(2, 3, 16, 16)
    config = ours.backbone.config
    mean, std = config.norm_mean, config.norm_std
    timms = build_expert({"name": "x", "family": "timm", **entry, "mean": list(mean), "std": list(std)})
    timms.load_pretrained(tmp_path / "own.safetensors")
    mean_31, std_31 = (torch.tensor(values)[:, None, None] for values in (mean, std))
    torch.testing.assert_close(timms((pixels - mean_31) / std_31), ours(pixels), atol=1e-4, rtol=1e-4)
    assert (ours.spec.preprocessing.mean, ours.spec.preprocessing.std) == ((0, 0, 0), (1, 1, 1))
    with pytest.raises(ConfigError, match=r"RADIO normalises its images itself.* write `mean: \[0, 0, 0\]`"):
        expert_of(tmp_path, mean=[0.5, 0.5, 0.5])


def test_a_folder_that_says_that_nothing_is_normalised(tmp_path):
    lively(MODELS["vit"]()).save_pretrained(tmp_path)
    processing = {"do_normalize": False, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    storage.save_json(tmp_path / "preprocessor_config.json", processing)
    fields = expert_of(tmp_path).fields
    assert (fields["mean"], fields["std"]) == ([0, 0, 0], [1, 1, 1])
