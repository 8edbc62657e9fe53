"""What a saved image processor gives in stock transformers: the pixels of training, whatever an image's shape."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tove_lvlm import ToVEImageProcessor
from tove_lvlm.config import UserError
from tove_lvlm.data.images import flatten, to_pixels
from tove_lvlm.lvlm.image_processor import as_trained

SIZES = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}, "image_mean": [0.2, 0.5, 0.9]}
SHAPES = [(40, 20), (21, 47), (24, 24), (17, 50)]


def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in SHAPES]


@pytest.mark.parametrize("aspect_ratio", ["square", "pad"])
@pytest.mark.parametrize("kind", [ToVEImageProcessor, CLIPImageProcessorPil, LlavaImageProcessorPil])
@pytest.mark.parametrize("padded_before", [False, True])
def test_saved_and_read_by_stock_transformers_it_gives_the_pixels_of_training(
    kind, aspect_ratio, padded_before, tmp_path
):
    processor = kind(**SIZES)
    expected = torch.stack([to_pixels(image, processor, aspect_ratio) for image in images()])
    if padded_before:
        processor = as_trained(processor, "pad", "white")
    as_trained(processor, aspect_ratio, "white").save_pretrained(tmp_path)
    read = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert torch.equal(read(images(), return_tensors="pt")["pixel_values"], expected)
    other = "square" if aspect_ratio == "pad" else "pad"
    assert not torch.equal(expected, torch.stack([to_pixels(image, processor, other) for image in images()]))


@pytest.mark.parametrize("kind", [ToVEImageProcessor, CLIPImageProcessorPil, LlavaImageProcessorPil])
def test_what_transparent_images_stand_on_is_saved(kind, tmp_path):
    drawing = Image.new("RGBA", (40, 20), (0, 0, 0, 0))
    drawing.paste((200, 10, 10, 128), (10, 5, 25, 15))
    for transparency in ("ignore", "white"):
        processor = as_trained(kind(**SIZES), "pad", transparency)
        processor.save_pretrained(tmp_path)
        read = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
        expected = to_pixels(flatten(drawing, transparency), kind(**SIZES), "pad")
        assert torch.equal(to_pixels(drawing, read, "pad"), expected)
    assert torch.equal(read(drawing, return_tensors="pt")["pixel_values"][0], expected)  # stock: white


@pytest.mark.parametrize(("ratio", "transparency"), [("anyres", "white"), ("pad", ["black"])])
def test_unknown_values_name_the_file_and_what_is_known(ratio, transparency):
    known = "`image_aspect_ratio` is 'anyres'; expected square or pad"
    known = known if ratio == "anyres" else r"`transparency` is \['black'\]; expected white or ignore"
    with pytest.raises(UserError, match=f"tove_model.json: {known}"):
        as_trained(ToVEImageProcessor(**SIZES), ratio, transparency, where="x/tove_model.json")


def test_clips_own_stays_clips_own_where_training_cut_the_middle_out():
    processor = CLIPImageProcessorPil(**SIZES)
    assert type(as_trained(processor, "square", "white")) is CLIPImageProcessorPil
    assert type(as_trained(processor, "pad", "white")) is LlavaImageProcessorPil


def test_training_pads_or_cuts_whatever_the_processor_says():
    cutting = ToVEImageProcessor(**SIZES)
    padding = as_trained(cutting, "pad", "white")
    for aspect_ratio in ("square", "pad"):
        for image in images():
            assert torch.equal(to_pixels(image, cutting, aspect_ratio), to_pixels(image, padding, aspect_ratio))


def test_a_processor_that_cannot_pad_is_told(caplog):
    processor = SiglipImageProcessorPil()
    assert type(as_trained(processor, "pad", "white")) is SiglipImageProcessorPil
    assert "SiglipImageProcessorPil cannot pad" in caplog.text
