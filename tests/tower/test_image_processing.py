"""The image processor: CLIP's pixels exactly, LLaVA's surface."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from tove_lvlm import ToVEImageProcessor


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 24, 3), dtype=np.uint8))


def test_same_pixels_as_clips_own(tiny_tower, tiny_tower_yaml, image):
    ours = ToVEImageProcessor.for_tower(tiny_tower.config)
    clips = AutoImageProcessor.from_pretrained(tiny_tower_yaml.parent / "clip", backend="pil")
    left = ours(image, return_tensors="pt")["pixel_values"]
    right = clips(image, return_tensors="pt")["pixel_values"]
    assert left.shape == (1, 3, 16, 16)
    assert left.std() > 0.1
    torch.testing.assert_close(left, right, atol=0, rtol=0)


def test_surface_that_llava_uses(tiny_tower, image):
    processor = ToVEImageProcessor.for_tower(tiny_tower.config)
    assert processor.preprocess(image, return_tensors="pt")["pixel_values"][0].shape == (3, 16, 16)
    assert processor([image, image], return_tensors="pt")["pixel_values"].shape == (2, 3, 16, 16)
    assert list(processor.image_mean) == [0.5, 0.5, 0.5]
    assert processor.crop_size["height"] == processor.crop_size["width"] == 16
    assert processor.size["shortest_edge"] == 16


def test_grey_and_transparent_images_come_out_as_rgb(tiny_tower, image):
    processor = ToVEImageProcessor.for_tower(tiny_tower.config)
    for mode in ("L", "RGBA", "P"):
        assert processor(image.convert(mode), return_tensors="pt")["pixel_values"].shape == (1, 3, 16, 16)


def test_auto_class_round_trip(tiny_tower, tmp_path, image):
    processor = ToVEImageProcessor.for_tower(tiny_tower.config)
    processor.save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(loaded) is ToVEImageProcessor
    assert torch.equal(
        loaded(image, return_tensors="pt")["pixel_values"], processor(image, return_tensors="pt")["pixel_values"]
    )
