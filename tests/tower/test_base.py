"""A base encoder that is no CLIP: SigLIP, DINOv2 and timm's, from the YAML to saved towers."""

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import Qwen2VLImageProcessor, RadioConfig, RadioModel

from helpers import tiny_bases, tiny_towers
from helpers.tiny_qwen import MODELS as QWEN
from helpers.tiny_qwen import make_qwen
from tove_lvlm import ToVEImageProcessor, ToVEVisionConfig, ToVEVisionModel, build_tower
from tove_lvlm.config import ConfigError
from tove_lvlm.tower.build import tower_config_from_yaml
from tove_lvlm.tower.inventory import tower_inventory

TIMM = {
    "family": "timm",
    "architecture": "vit_tiny_patch16_224",
    "model_args": tiny_towers.VIT_ARGS,
    "image_size": 16,
    "pretrained": "none",
}


@pytest.fixture(scope="module", params=list(tiny_bases.TRANSFORMERS))
def made(request, tmp_path_factory):
    """(the base's folder, the tower's YAML)"""
    folder = tmp_path_factory.mktemp(request.param)
    base = tiny_bases.make_base(folder / "base", request.param)
    entry = {"family": "transformers", "pretrained": "./base", "layer": -2}
    return base, tiny_bases.make_tower_on(folder, entry)


def stock_tokens(folder, pixels: torch.Tensor, layer: int | None = -2) -> torch.Tensor:
    """Patch tokens of a hidden state, by transformers alone."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        output = model(pixel_values=pixels, output_hidden_states=True)
    states = output.last_hidden_state if layer is None else output.hidden_states[layer]
    return states[:, -16:]


@torch.no_grad()
def test_tokens_are_the_stock_encoders_bit_for_bit_until_experts_add_theirs(made):
    base, path = made
    tower = build_tower(path)
    pixels = tiny_towers.pixels()
    expected = stock_tokens(base, pixels)
    t_clip, t_fuse = tower(pixels).hidden_states
    assert torch.equal(t_clip, expected)
    assert torch.equal(t_fuse, expected), "the transfers start at zero"
    tiny_towers.wake(tower)
    assert (tower(pixels).last_hidden_state - expected).abs().max() > 0.1
    tower.detach(*tower.expert_names)
    assert torch.equal(tower(pixels).last_hidden_state, expected)


def test_hosts_read_the_sizes_and_the_base_is_frozen(made):
    _, path = made
    tower = build_tower(path)
    config = tower.config
    assert (config.clip_config, config.base["family"]) == (None, "transformers")
    assert (config.hidden_size, config.side, config.num_tokens, config.image_size, config.patch_size) == (
        32,
        4,
        16,
        16,
        4,
    )
    assert config.image_mean == tiny_towers.HALF
    assert not any(parameter.requires_grad for parameter in tower.clip.parameters())
    assert not tower.train().clip.training
    assert ToVEImageProcessor.for_tower(config).crop_size["height"] == 16
    assert tower_config_from_yaml(path).to_dict() == config.to_dict()


@torch.no_grad()
@pytest.mark.parametrize("light", [False, True])
def test_saved_and_loaded(made, tmp_path, light):
    _, path = made
    tower = tiny_towers.wake(build_tower(path))
    tower.save_pretrained(tmp_path / "saved", light=light)
    again = ToVEVisionModel.from_pretrained(tmp_path / "saved")
    pixels = tiny_towers.pixels()
    assert torch.equal(again(pixels).last_hidden_state, tower(pixels).last_hidden_state)
    assert any(key.startswith("clip.backbone.") for key in again.state_dict())
    assert again.sources["clip"]["source"] == tower.sources["clip"]["source"]
    assert "| base | transformers: " in (tmp_path / "saved" / "README.md").read_text()


@torch.no_grad()
def test_the_last_hidden_state_and_more_pixels_for_the_experts(made):
    base, path = made
    pixels = tiny_towers.pixels()
    entry = yaml.safe_load(path.read_text())["base"]
    last = build_tower(path, ["base.layer=null"])
    assert torch.equal(last.clip_tokens(pixels), stock_tokens(base, pixels, None))
    large = build_tower(path, ["base.input_size=32"])
    assert (large.config.image_size, large.config.patch_size, large.config.side) == (32, 8, 4)
    assert large(torch.rand(1, 3, 32, 32)).last_hidden_state.shape == (1, 16, 32)
    assert entry["layer"] == -2


def test_the_inventory_has_the_base_first(made):
    _, path = made
    found = tower_inventory(path)
    first = found["parts"][0]
    assert (first["name"], first["family"], first["library"]) == ("clip", "transformers", "transformers")
    assert first["parameters"] == sum(parameter.numel() for parameter in build_tower(path).clip.parameters())
    assert found["relative_to_clip"]["parameters"] > 1
    assert found["missing"] == []


def test_a_base_of_timm(tmp_path):
    tower = build_tower(tiny_bases.make_tower_on(tmp_path, TIMM))
    assert (tower.config.hidden_size, tower.config.side) == (24, 4)
    pixels = tiny_towers.pixels()
    grid = tower.clip(pixels)
    assert torch.equal(tower.clip_tokens(pixels), grid.flatten(2).transpose(1, 2))


def test_base_without_a_family_is_a_clip(tmp_path, tiny_tower_yaml):
    folder = tiny_tower_yaml.parent / "clip"
    for entry in ({"pretrained": str(folder)}, {"family": "clip", "pretrained": str(folder)}):
        path = tiny_bases.make_tower_on(tmp_path, entry)
        assert build_tower(path).config.clip_config == build_tower(tiny_tower_yaml).config.clip_config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": TIMM, "clip": {"pretrained": "none"}}, "both of `clip` and `base`"),
        ({}, "neither of `clip` and `base`"),
        ({"base": {**TIMM, "family": "nothing"}}, "base.family"),
        ({"base": {**TIMM, "select_layer": -2}}, r"the layer of another base is `base\.layer`"),
        ({"base": {**TIMM, "image_mean": [0.1, 0.1, 0.1]}}, "image_mean"),
        ({"base": {**TIMM, "input_size": 18}}, "expected a multiple of the 4 tokens of a row, at least the base's 16"),
        ({"base": {"family": "dense_vit", "output": "map", "channels": 1, **tiny_towers.DENSE, "pretrained": "none"}},
         "the base gives a `map`; expected `output: features`"),
        ({"base": {"family": "edge_filter", "filter": "sobel"}}, "has no weights to enrich"),
        ({"base": "no_such_encoder"}, "no_such_encoder"),
        ({"base": {"family": "timm", "architecture": "vit_tiny_patch16_224", "image_size": 16}}, "base.pretrained"),
    ],
)  # fmt: skip
def test_what_is_no_base_is_said_before_anything_is_built(tmp_path, change, message):
    path = tmp_path / "tower.yaml"
    path.write_text(yaml.safe_dump({"experts": [], **change}))
    with pytest.raises(ConfigError, match=message):
        build_tower(path)


def test_images_are_normalised_as_the_bases(made):
    _, path = made
    fields = tower_config_from_yaml(path).base
    assert ToVEVisionConfig(base=fields).image_mean == tiny_towers.HALF
    with pytest.raises(ConfigError, match=r"the base's by \[0\.5, 0\.5, 0\.5\]"):
        ToVEVisionConfig(base=fields, image_mean=[0.4, 0.4, 0.4])


def test_a_base_of_the_catalogue_by_its_name(tmp_path):
    path = tmp_path / "tower.yaml"
    path.write_text(yaml.safe_dump({"base": "siglip2_b16_384", "experts": []}))
    config = tower_config_from_yaml(path)
    assert (config.base["family"], config.base_width, config.side, config.image_size) == ("timm", 768, 24, 384)
    assert config.image_mean == tiny_towers.HALF


def test_a_grid_that_is_not_square_is_refused():
    fields = {
        "family": "timm",
        "architecture": "vit_tiny_patch16_224",
        "channels": 24,
        "grid": [4, 2],
        "image_size": 16,
    }
    with pytest.raises(ConfigError, match="a grid of 4 x 2"):
        ToVEVisionConfig(base=fields)


@torch.no_grad()
@pytest.mark.parametrize("kind", QWEN)
def test_qwens_vision_encoder_of_a_whole_model(tmp_path, kind):
    """The base's tokens are those that Qwen's own language model reads; the tower without experts is that encoder."""
    model = make_qwen(tmp_path / "base", kind, 32)
    path = tiny_bases.make_tower_on(tmp_path, {"family": "transformers", "pretrained": "./base", "image_size": 32})
    tower = tiny_towers.wake(build_tower(path))
    config = tower.config
    assert (config.hidden_size, config.side, config.image_size, config.patch_size) == (48, 4, 32, 8)
    pixels = torch.randn(2, 3, 32, 32)
    patches, _, _ = Qwen2VLImageProcessor().patchify(pixels, patch_size=4, merge_size=2, temporal_patch_size=2)
    grid = torch.tensor([[1, 8, 8]] * 2)
    expected = model.visual(patches.flatten(0, 1), grid_thw=grid).pooler_output.unflatten(0, (2, 16))
    t_clip, t_fuse = tower(pixels).hidden_states
    torch.testing.assert_close(t_clip, expected, atol=1e-5, rtol=1e-4)
    assert (t_fuse - t_clip).abs().max() > 0.1
    tower.save_pretrained(tmp_path / "saved")
    again = ToVEVisionModel.from_pretrained(tmp_path / "saved")
    assert torch.equal(again(pixels).last_hidden_state, t_fuse)
    tower.detach(*tower.expert_names)
    assert torch.equal(tower(pixels).last_hidden_state, t_clip)


@torch.no_grad()
def test_radio_normalises_its_images_itself(tmp_path):
    """Hosts then give pixels in [0, 1]; summary and register tokens are left out."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 16, "patch_size": 4}
    stock = RadioModel(RadioConfig(**sizes, max_img_size=32, initializer_range=0.2)).eval()
    stock.save_pretrained(tmp_path / "base")
    entry = {"family": "transformers", "pretrained": "./base", "layer": -2}
    tower = tiny_towers.wake(build_tower(tiny_bases.make_tower_on(tmp_path, entry)))
    assert (tower.config.image_mean, tower.config.image_std) == ([0, 0, 0], [1, 1, 1])
    processor = ToVEImageProcessor.for_tower(tower.config)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    pixels = processor(picture, return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels, torch.as_tensor(np.array(picture)).permute(2, 0, 1)[None] / 255)
    t_clip, t_fuse = tower(pixels).hidden_states
    assert torch.equal(t_clip, stock(pixels, output_hidden_states=True).hidden_states[-2][:, 10:])
    assert (t_fuse - t_clip).abs().max() > 0.1
