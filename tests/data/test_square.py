"""A padded image resized without its padding: LLaVA's pixels, and when it cannot be done."""

import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from tove_lvlm.data.images import to_pixels
from tove_lvlm.data.square import expand_to_square, resize_in_square, square_side

COLOR = (122, 116, 104)
BICUBIC, LANCZOS = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_square_by_hand():
    image = Image.new("RGB", (4, 1), (9, 9, 9))
    square = np.asarray(expand_to_square(image, (1, 2, 3)))
    assert square.shape == (4, 4, 3)
    assert (square[1] == 9).all()
    assert (square[[0, 2, 3]] == [1, 2, 3]).all()
    turned = np.asarray(expand_to_square(image.rotate(90, expand=True), (1, 2, 3)))
    assert (turned[:, 1] == 9).all()
    assert expand_to_square(image.crop((0, 0, 1, 1)), (0, 0, 0)).size == (1, 1)


@pytest.mark.parametrize("resample", [BICUBIC, LANCZOS])
def test_resized_without_the_padding_is_llavas_square(resample):
    rng, different, values = np.random.default_rng(1), 0, 0
    sizes = [(640, 480), (480, 640), (300, 2), (1, 90), (7, 700), (64, 64), (335, 336), *rng.integers(2, 400, (30, 2))]
    for seed, (width, height) in enumerate(sizes):
        image, side = noise(int(width), int(height), seed), int(rng.choice([16, 64, 336]))
        expected = np.asarray(expand_to_square(image, COLOR).resize((side, side), resample), dtype=int)
        found = np.asarray(resize_in_square(image, COLOR, side, resample), dtype=int)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1, (width, height, side)
        different, values = different + np.count_nonzero(found != expected), values + found.size
    assert different / values < 2e-4, "of noise, which is the worst"


@pytest.mark.parametrize("kind", [CLIPImageProcessorPil, LlavaImageProcessorPil])
@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("aspect_ratio", ["pad", "square"])
def test_an_image_processor_gives_the_same_pixels(kind, as_bytes, aspect_ratio):
    processor = kind(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})
    level = 1 if as_bytes else 1 / 255 / min(processor.image_std)
    different, values = 0, 0
    for width, height in ((200, 131), (131, 200), (640, 480), (48, 500), (30, 31), (333, 48), (90, 90)):
        image = noise(width, height)
        expected_3HW = to_pixels(image, processor, aspect_ratio, as_bytes=as_bytes)
        found_3HW = to_pixels(image, processor, aspect_ratio, as_bytes=as_bytes, direct_resize=True)
        assert found_3HW.dtype == expected_3HW.dtype
        assert (found_3HW.float() - expected_3HW.float()).abs().max() <= level * 1.0001
        different, values = different + (found_3HW != expected_3HW).sum().item(), values + found_3HW.numel()
    assert different / values < 1e-3


@pytest.mark.parametrize(
    "options",
    [
        {"do_resize": False},
        {"crop_size": {"height": 32, "width": 32}},
        {"resample": Image.Resampling.BILINEAR},
        {"size": {"height": 48, "width": 48}},
    ],
)
def test_a_processor_that_does_otherwise_is_asked_itself(options):
    sizes = {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}}
    processor = CLIPImageProcessorPil(**{**sizes, **options})
    assert square_side(processor, "pad") is None
    assert square_side(processor, "square") is None
    if "do_resize" not in options:
        image = noise(60, 50)
        expected_3HW = to_pixels(image, processor, "pad")
        assert (to_pixels(image, processor, "pad", direct_resize=True) == expected_3HW).all()


def test_without_a_cut_only_padding_makes_a_square():
    processor = CLIPImageProcessorPil(size={"shortest_edge": 48}, do_center_crop=False)
    assert square_side(processor, "pad") == 48
    assert square_side(processor, "square") is None
    assert square_side(object(), "pad") is None
