"""Bytes and a table give the image processor's own pixels, bit for bit."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tove_lvlm.data.images import to_pixels
from tove_lvlm.data.pixel_table import PixelTable
from tove_lvlm.lvlm.image_processor import as_trained

CLIP = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
PROCESSORS = {
    "CLIP, cut": (CLIP, "square"),
    "CLIP, padded by training": (CLIP, "pad"),
    "LLaVA, padded": (as_trained(CLIP, "pad", "white"), "pad"),
    "SigLIP": (SiglipImageProcessorPil(size={"height": 32, "width": 32}), "square"),
}


def pictures():
    rng = np.random.default_rng(1)
    for size in ((50, 40), (32, 32), (20, 90), (7, 5)):
        yield Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    yield Image.fromarray(rng.integers(0, 256, (30, 40, 4), dtype=np.uint8))  # transparent


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_those_of_the_processor(name):
    processor, aspect_ratio = PROCESSORS[name]
    table = PixelTable.of(processor, aspect_ratio)
    for picture in pictures():
        bytes_3HW = to_pixels(picture, processor, aspect_ratio, as_bytes=True)
        expected_3HW = to_pixels(picture, processor, aspect_ratio)
        assert bytes_3HW.dtype == torch.uint8
        assert expected_3HW.std() > 0.1
        assert torch.equal(table(bytes_3HW[None])[0], expected_3HW)


class Contrast(CLIPImageProcessorPil):
    """What it makes of a pixel depends on all others."""

    def preprocess(self, images, do_normalize=True, **kwargs):
        prepared = super().preprocess(images, do_normalize=do_normalize, **kwargs)
        if do_normalize:
            prepared["pixel_values"] = [one / one.std() for one in prepared["pixel_values"]]
        return prepared


class Floats(CLIPImageProcessorPil):
    """Resizes in floats, between two bytes."""

    def preprocess(self, images, **kwargs):
        prepared = super().preprocess(images, **kwargs)
        prepared["pixel_values"] = [one.float() + 0.25 for one in prepared["pixel_values"]]
        return prepared


@pytest.mark.parametrize("kind", [Contrast, Floats])
def test_a_processor_that_is_no_table_keeps_its_floats(kind):
    assert PixelTable.of(kind(size=CLIP.size, crop_size=CLIP.crop_size)) is None
