"""Qwen's vision encoders out of a whole Qwen-VL: our grid is what its own language model reads of the same picture."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2VLImageProcessor

from helpers.tiny_qwen import MODELS, make_qwen
from tove_lvlm import storage
from tove_lvlm.config import ConfigError
from tove_lvlm.experts import build_expert
from tove_lvlm.experts.families.transformers.model import read_features
from tove_lvlm.experts.schema import complete_fields

SIZE = 40
PICTURES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)) for seed in range(3)
]


@pytest.fixture(scope="module", params=MODELS)
def saved(request, tmp_path_factory):
    """(kind, whole model, its folder with image processor)"""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, make_qwen(folder, request.param, SIZE), folder


def expert_of(folder, **fields):
    entry = {"name": "qwen", "family": "transformers", "image_size": SIZE, **fields}
    expert = build_expert(complete_fields(entry, str(folder), "test"))
    expert.load_pretrained(folder)
    return expert


def normalised(expert) -> torch.Tensor:
    pixels = torch.stack([torch.as_tensor(np.array(picture)).permute(2, 0, 1) / 255 for picture in PICTURES])
    mean, std = (torch.tensor(expert.fields[key])[:, None, None] for key in ("mean", "std"))
    return (pixels - mean) / std


@torch.no_grad()
def test_grid_is_what_the_language_model_reads(saved):
    kind, model, folder = saved
    expert = expert_of(folder)
    assert expert.spec.architecture == f"{kind}_vision"
    assert (expert.spec.channels, expert.spec.grid, expert.patch_size) == (48, (5, 5), 8)
    inputs = Qwen2VLImageProcessor.from_pretrained(folder)(PICTURES, return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, 10, 10]] * 3
    expected = model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
    expected = expected.reshape(3, 5, 5, 48).permute(0, 3, 1, 2)
    grid = expert(normalised(expert))
    torch.testing.assert_close(grid, expected, atol=1e-5, rtol=1e-4)
    assert (grid[0] - grid[1]).abs().max() > 0.1, "another picture"
    expert.use_attention("eager")
    torch.testing.assert_close(expert(normalised(expert)), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_published_files_name_the_whole_model_and_put_the_encoder_under_visual(saved, tmp_path):
    """As Qwen2-VL's were written: no model type in `vision_config`, `visual.` without `model.`."""
    kind, _, folder = saved
    config = storage.load_json(folder / "config.json")
    del config["vision_config"]["model_type"]
    storage.save_json(tmp_path / "config.json", config)
    (tmp_path / "preprocessor_config.json").write_bytes((folder / "preprocessor_config.json").read_bytes())
    tensors = {key.removeprefix("model."): tensor for key, tensor in storage.load_tensors(folder).items()}
    storage.save_tensors(tmp_path / "model.safetensors", tensors)
    expert, published = expert_of(folder), expert_of(tmp_path)
    assert torch.equal(published(normalised(published)), expert(normalised(expert)))


@torch.no_grad()
def test_only_what_is_read_is_run(saved):
    """Counting needs no weights, and deepstack's mergers, which Qwen's own language model reads, cost nothing."""
    kind, model, folder = saved
    expert = expert_of(folder)
    with FlopCounterMode(display=False) as ours:
        expert(normalised(expert))
    with torch.device("meta"):
        network = build_expert(expert.fields)
        with FlopCounterMode(display=False) as counted:
            network(torch.zeros(3, 3, SIZE, SIZE))
    assert counted.get_total_flops() == ours.get_total_flops()
    inputs = Qwen2VLImageProcessor.from_pretrained(folder)(PICTURES, return_tensors="pt")
    with FlopCounterMode(display=False) as whole:
        model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
    if kind == "qwen3_vl":
        assert ours.get_total_flops() < 0.9 * whole.get_total_flops()
    else:
        assert ours.get_total_flops() == whole.get_total_flops()


def test_sizes_and_layers_that_it_does_not_have_are_refused(saved):
    kind, _, folder = saved
    with pytest.raises(ConfigError, match="`image_size` 36 is not a multiple of the patch size 8 .* nearest: 32 or 40"):
        _ = expert_of(folder, image_size=36).spec
    with pytest.raises(ConfigError, match=f"`layer` is -2, but of a `{kind}_vision` the merger's tokens are read"):
        expert_of(folder, layer=-2)


@torch.no_grad()
def test_read_inside_peft(saved):
    from peft import LoraConfig, get_peft_model

    _, _, folder = saved
    expert = expert_of(folder)
    pixels = normalised(expert)
    before = expert(pixels)
    adapted = get_peft_model(expert.backbone, LoraConfig(target_modules=["qkv"]))
    torch.testing.assert_close(read_features(adapted, pixels, None, {}), before, atol=1e-5, rtol=1e-4)
