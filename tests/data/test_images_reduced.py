"""Large photographs decoded at a reduced size: how far a pixel is from LLaVA's, and what is left alone."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from skimage import data
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tove_lvlm.data.images import read_image, to_pixels

SIDE = 64
PROCESSOR = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def encoded(image: Image.Image, kind: str = "JPEG") -> BytesIO:
    file = BytesIO()
    image.save(file, kind, **({"quality": 92} if kind == "JPEG" else {}))
    return file


@pytest.mark.parametrize("aspect_ratio", ["square", "pad"])
@pytest.mark.parametrize("size", [(800, 600), (1100, 300), (1040, 2080)])
def test_a_reduced_photograph_gives_nearly_the_same_pixels(size, aspect_ratio):
    file = encoded(Image.fromarray(data.astronaut()).resize(size, Image.Resampling.BICUBIC))
    whole, reduced = read_image(file), read_image(file, reduce_to=SIDE)
    assert whole.size == size
    assert min(reduced.size) >= 2 * SIDE
    assert reduced.size[0] * reduced.size[1] < 0.3 * size[0] * size[1]
    pixels = [
        to_pixels(image, PROCESSOR, aspect_ratio, as_bytes=True).numpy().astype(int) for image in (whole, reduced)
    ]
    assert np.abs(pixels[0] - pixels[1]).mean() < 1
    assert np.abs(pixels[0] - pixels[1]).max() <= 10


@pytest.mark.parametrize(
    ("size", "kind"), [((250, 600), "JPEG"), ((257, 700), "JPEG"), ((514, 1032), "JPEG"), ((800, 600), "PNG")]
)
def test_small_ones_and_other_formats_are_decoded_whole(size, kind):
    file = encoded(Image.fromarray(data.astronaut()).resize(size), kind)
    assert np.array_equal(read_image(file), read_image(file, reduce_to=SIDE))
