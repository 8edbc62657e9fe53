"""Low-level experts in the catalogue and in a tower: sizes, pixels, what has no weights, saving and loading."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from skimage import data

from tove_lvlm import ToVEVisionModel, build_tower
from tove_lvlm.config import ConfigError
from tove_lvlm.config.sources import WEIGHT_KEYS
from tove_lvlm.experts import EXPERTS, build_expert, describe
from tove_lvlm.experts.catalogue import catalogue, entry_of
from tove_lvlm.experts.preprocess import Preprocessing, prepare
from tove_lvlm.tower.from_yaml import read_tower_yaml
from tove_lvlm.tower.image_processing import ToVEImageProcessor

# Millions of parameters, as the authors publish them (344, 123, 24.8, 97.5, 335.3, -, 72, 35) less a unit of the depth
# networks that is never run.
SIZES = {
    "dpt_large": 341.8,
    "dpt_hybrid_midas": 121.2,
    "depth_anything_v2_s": 24.7,
    "depth_anything_v2_b": 97.2,
    "depth_anything_v2_l": 334.1,
    "normals_from_depth": 24.7,
    "normal_bae": 72.4,
    "dexined": 35.2,
    "hed": 14.7,
    "pp_ocr_det": 2.45,
    "canny": 0,
    "sobel": 0,
}
CLIP = {
    "pretrained": "none",
    "architecture": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32},
}
CLIP["architecture"] |= {"patch_size": 8, "intermediate_size": 64}


def architecture_of(name: str, **changes) -> dict:
    return {key: value for key, value in {**entry_of(name), **changes}.items() if key not in WEIGHT_KEYS}


@pytest.mark.parametrize("name", SIZES)
def test_size_of_the_network(name):
    stated = {"channels": 1, "grid": [1, 1]}  # what it gives is not asked here, which would build it once more
    with torch.device("meta"):
        expert = build_expert(architecture_of(name, **stated))
    assert sum(parameter.numel() for parameter in expert.parameters()) / 1e6 == pytest.approx(SIZES[name], abs=0.1)
    assert expert.spec.kind == "low_level"
    assert expert.has_weights == (SIZES[name] > 0)


def test_none_is_forgotten():
    low_level = {name for name, entry in catalogue().items() if EXPERTS.get(entry["family"]).kind == "low_level"}
    assert low_level == set(SIZES)


# ---- pixels ----

PHOTOGRAPH = Image.fromarray(data.astronaut())  # 512 x 512: square, so that crops do not come into it
TOWER = Preprocessing(336, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def through_the_tower(name: str) -> torch.Tensor:
    """What the expert sees in a tower of 336 pixels, back in RGB of 0 to 1 by its own mean and std."""
    processor = ToVEImageProcessor(
        size={"shortest_edge": 336},
        crop_size={"height": 336, "width": 336},
        image_mean=list(TOWER.mean),
        image_std=list(TOWER.std),
    )
    pixels = processor(PHOTOGRAPH, return_tensors="pt")["pixel_values"]
    return prepare(pixels, TOWER, describe(architecture_of(name)).preprocessing)


def of_transformers(size: int, mean: float | list, std: float | list) -> torch.Tensor:
    from transformers import DPTImageProcessor

    processor = DPTImageProcessor(
        size={"height": size, "width": size},
        keep_aspect_ratio=True,
        ensure_multiple_of=14 if size == 518 else 1,
        image_mean=mean,
        image_std=std,
    )
    return processor(PHOTOGRAPH, return_tensors="pt")["pixel_values"]


def of_normal_bae(size: int, mean: list, std: list) -> torch.Tensor:
    """Its detector: resized, ImageNet's normalisation."""
    from torchvision.transforms import v2

    transform = v2.Compose([v2.Resize((size, size)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    return v2.Normalize(mean, std)(transform(PHOTOGRAPH))[None]


def of_kornia(size: int, mean: None, std: None) -> torch.Tensor:
    """Its detector: resized, then BGR over 0..255 less the mean; here turned back to RGB."""
    from kornia.contrib.edge_detection import ResizePreProcessor

    rgb = torch.from_numpy(np.asarray(PHOTOGRAPH).transpose(2, 0, 1).copy()).float()[None] / 255
    resized = ResizePreProcessor(size, size)(rgb)[0]
    return resized * 255 - torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1)


IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
OWN = {
    "dpt_large": (of_transformers, 384, [0.5] * 3, [0.5] * 3),
    "depth_anything_v2_s": (of_transformers, 518, *IMAGENET),
    "normal_bae": (of_normal_bae, 384, *IMAGENET),
    "dexined": (of_kornia, 352, None, None),
}


@pytest.mark.parametrize("name", OWN)
def test_pixels_are_the_librarys_own_but_for_what_the_smaller_picture_lost(name):
    """The photograph has 512 pixels and the tower 336: the mean difference is below 0.02 of the range of the picture.

    The normalisation itself is exact: the mean over the picture, where a resize hardly matters, differs below 0.002.
    """
    own, size, mean, std = OWN[name]
    expected, found = own(size, mean, std), through_the_tower(name)
    assert found.shape == expected.shape
    scale = torch.tensor(describe(architecture_of(name)).preprocessing.std).view(1, 3, 1, 1)
    difference = (found - expected) * scale
    assert difference.abs().mean() < 0.02
    assert difference.mean((2, 3)).abs().max() < 0.002


# ---- a tower ----


@pytest.fixture
def tower_yaml(tmp_path):
    experts = [
        {"expert": "canny", "name": "edges", "image_size": 32},
        {"name": "gradient", "family": "edge_filter", "filter": "sobel", "image_size": 32},
        {"expert": "pp_ocr_det", "name": "text", "image_size": 64},
    ]
    path = tmp_path / "tower.yaml"
    path.write_text(yaml.safe_dump({"clip": CLIP, "experts": experts, "fusion": {"stem_width": 8}}))
    return path


@torch.no_grad()
def test_what_has_no_weights_needs_none_anywhere(tower_yaml, tmp_path, caplog):
    assert list(read_tower_yaml(tower_yaml).parts) == ["clip", "text"]
    tower = build_tower(tower_yaml)
    random = [record.getMessage() for record in caplog.records if "random weights" in record.getMessage()]
    assert len(random) == 1
    assert "`clip`" in random[0]
    from helpers import tiny_towers

    tiny_towers.wake(tower)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    out = tower(pixels)
    assert out.last_hidden_state.isfinite().all()
    tower.save_pretrained(tmp_path / "whole")
    again = ToVEVisionModel.from_pretrained(tmp_path / "whole")
    # Not to the bit: with AVX2 a convolution's last digit depends on where in memory its weights lie.
    torch.testing.assert_close(again(pixels).last_hidden_state, out.last_hidden_state, rtol=0, atol=1e-6)
    assert again.to(torch.bfloat16)(pixels.bfloat16()).last_hidden_state.dtype == torch.bfloat16
    sources = json.loads((tmp_path / "whole" / "sources.json").read_text())["experts"]
    assert sources["text"]["source"] == "package:rapidocr/models/PP-OCRv6_det_small.onnx"
    tower.detach("edges")
    tower.attach("edges")
    assert torch.equal(tower(pixels).last_hidden_state, out.last_hidden_state)


def test_a_light_tower_asks_for_no_weights_of_a_filter(tower_yaml, tmp_path):
    from helpers import tiny_towers

    clip = tiny_towers.make_clip(tmp_path / "clip")
    options = [f"clip.pretrained={clip}", "clip.architecture=null"]
    tower = tiny_towers.wake(build_tower(tower_yaml, options))
    tower.save_pretrained(tmp_path / "light", light=True)
    again = ToVEVisionModel.from_pretrained(tmp_path / "light")
    pixels = torch.randn(1, 3, 16, 16)
    assert torch.equal(again(pixels).last_hidden_state, tower(pixels).last_hidden_state)


def test_weights_are_asked_for_where_there_are_some(tower_yaml):
    page = yaml.safe_load(tower_yaml.read_text())
    page["experts"] = [{"name": "edges", "family": "hed"}]
    tower_yaml.write_text(yaml.safe_dump(page))
    with pytest.raises(ConfigError, match=r"required key `experts\[0\].pretrained` is missing"):
        read_tower_yaml(tower_yaml)
