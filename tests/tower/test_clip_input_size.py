"""More pixels for the experts than CLIP takes: `input_size`, from the YAML to the hosts."""

import pytest
import torch
import yaml
from PIL import Image

from helpers import tiny_towers
from tove_lvlm import ToVEImageProcessor, ToVEVisionConfig, ToVEVisionModel, build_tower
from tove_lvlm.config import ConfigError
from tove_lvlm.experts.preprocess import prepare


@pytest.fixture(scope="module")
def large(tiny_tower_yaml) -> ToVEVisionModel:
    """The tiny tower, 16 pixels for its CLIP, with 64 given."""
    torch.manual_seed(0)
    tower = build_tower(tiny_tower_yaml, ["clip.input_size=64"])
    tiny_towers.wake(tower)
    return tower


def test_tokens_stay_and_a_host_counts_them_right(large, tiny_tower):
    config = large.config
    assert (config.image_size, config.patch_size, config.side, config.num_tokens) == (64, 16, 4, 16)
    assert (config.image_size // config.patch_size) ** 2 == config.num_tokens
    assert (tiny_tower.config.input_size, tiny_tower.config.image_size, tiny_tower.config.patch_size) == (None, 16, 4)
    processor = ToVEImageProcessor.for_tower(config)
    assert processor(Image.new("RGB", (80, 50)), return_tensors="pt")["pixel_values"].shape == (1, 3, 64, 64)


@torch.no_grad()
def test_clip_sees_its_own_size_and_experts_all_pixels(large, tiny_tower, monkeypatch):
    pixels_B3HW = torch.rand(2, 3, 64, 64)
    seen = {}
    for name, expert in large.experts.items():
        expert.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
    given = large.preprocessing
    small_B3HW = prepare(pixels_B3HW, given, given._replace(size=16), mode="bicubic")
    frozen = large.encode_frozen(pixels_B3HW)
    assert torch.equal(frozen.t_clip_BND, tiny_tower.encode_frozen(small_B3HW).t_clip_BND)
    for name, expert in large.experts.items():
        assert torch.equal(seen[name], prepare(pixels_B3HW, given, expert.spec.preprocessing))
    # The 32-pixel expert gets more than CLIP's 16 pixels hold.
    assert (
        seen["cnn"] - prepare(small_B3HW, given._replace(size=16), large.experts["cnn"].spec.preprocessing)
    ).std() > 0.1


@torch.no_grad()
def test_saved_loaded_and_refused_as_any_size(large, tmp_path):
    pixels_B3HW = torch.rand(1, 3, 64, 64)
    large.save_pretrained(tmp_path)
    again = ToVEVisionModel.from_pretrained(tmp_path)
    assert (again.config.input_size, again.config.image_size, again.config.side) == (64, 64, 4)
    assert torch.equal(again(pixels_B3HW).last_hidden_state, large(pixels_B3HW).last_hidden_state)
    assert ToVEImageProcessor.from_pretrained(tmp_path).crop_size["height"] == 64
    with pytest.raises(ValueError, match=r"expected \(B, 3, 64, 64\)"):
        again(torch.rand(1, 3, 16, 16))


@torch.no_grad()
def test_all_detached_it_is_clip_on_its_own_pixels(large):
    pixels_B3HW = torch.rand(1, 3, 64, 64)
    large.detach(*large.attached_names)
    states = large.clip(large.clip_pixels(pixels_B3HW), output_hidden_states=True).hidden_states
    assert torch.equal(large(pixels_B3HW).last_hidden_state, states[-2][:, 1:])
    large.attach()


@pytest.mark.parametrize("size", [8, 62, 0, "64"])
def test_sizes_that_do_not_fit_the_token_grid(size):
    with pytest.raises(ConfigError, match=f"`input_size` is {size!r}; expected a multiple of the 4 tokens of a row"):
        ToVEVisionConfig(clip_config=tiny_towers.CLIP_ARCHITECTURE, input_size=size)


def test_the_yaml_names_the_key(tiny_tower_yaml, tmp_path):
    tower = yaml.safe_load(tiny_tower_yaml.read_text())
    tower["clip"]["input_sise"] = 64
    file = tiny_tower_yaml.parent / "wrong.yaml"
    file.write_text(yaml.safe_dump(tower))
    with pytest.raises(ConfigError, match="unknown key `clip.input_sise`; did you mean `input_size`"):
        build_tower(file)
