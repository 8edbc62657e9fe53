"""From one normalisation and size to another, by hand."""

from pathlib import Path

import open_clip
import pytest
import timm
import torch
from PIL import Image
from transformers import SiglipImageProcessorPil

from tove_lvlm import ToVEImageProcessor, ToVEVisionConfig
from tove_lvlm.experts.preprocess import Preprocessing, prepare, resized

GIVEN = Preprocessing(4, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2))


def normalised(rgb: torch.Tensor) -> torch.Tensor:
    return (rgb - torch.tensor(GIVEN.mean).view(1, 3, 1, 1)) / torch.tensor(GIVEN.std).view(1, 3, 1, 1)


def test_nothing_to_do_gives_the_same_tensor():
    pixels = torch.randn(1, 3, 4, 4)
    assert prepare(pixels, GIVEN, GIVEN) is pixels


def test_normalisation_by_hand():
    rgb = torch.rand(2, 3, 4, 4)
    wanted = Preprocessing(4, (0.1, 0.2, 0.3), (0.5, 1.0, 2.0))
    found = prepare(normalised(rgb), GIVEN, wanted)
    expected = torch.stack([(rgb[:, 0] - 0.1) / 0.5, rgb[:, 1] - 0.2, (rgb[:, 2] - 0.3) / 2], 1)
    torch.testing.assert_close(found, expected)


def test_resizing_happens_on_the_picture_and_antialiases():
    rgb = torch.zeros(1, 3, 4, 4)
    rgb[..., ::2] = 1.0  # columns on, off, on, off: a resize without antialias would take single columns
    found = prepare(normalised(rgb), GIVEN, Preprocessing(2, (0.0,) * 3, (1.0,) * 3), "bilinear")
    weight = torch.tensor([3.0, 3.0, 1.0, 0.0]) / 7
    expected = (weight * torch.tensor([1.0, 0, 1, 0])).sum()
    torch.testing.assert_close(found[..., 0], expected.expand(1, 3, 2))
    assert prepare(normalised(rgb), GIVEN, Preprocessing(8, (0.0,) * 3, (1.0,) * 3)).shape == (1, 3, 8, 8)


def test_dtype_of_the_input_comes_back():
    pixels = torch.randn(1, 3, 4, 4).to(torch.bfloat16)
    wanted = Preprocessing(8, (0.1,) * 3, (0.2,) * 3)
    found = prepare(pixels, GIVEN, wanted)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), prepare(pixels.float(), GIVEN, wanted), rtol=0.01, atol=0.01)


# ---- against the libraries' own preprocessing of a photograph ----

SQUARE = {"astronaut": 512, "chelsea": 300, "coffee": 400}


def photograph(name: str):
    """The middle square: what is compared is resampling, not the part that is shown."""
    from skimage import data

    image = Image.open(Path(data.data_dir) / f"{name}.png").convert("RGB")
    side, (width, height) = SQUARE[name], image.size
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def librarys_own(library: str, image, size: int, mean, std) -> torch.Tensor:
    if library == "timm":
        return timm.data.create_transform((3, size, size), crop_pct=1.0, mean=mean, std=std, interpolation="bicubic")(
            image
        )
    if library == "open_clip":
        return open_clip.image_transform(size, is_train=False, mean=mean, std=std)(image)
    processor = SiglipImageProcessorPil(size={"height": size, "width": size}, image_mean=mean, image_std=std)
    return processor(image, return_tensors="pt")["pixel_values"][0]


def through_the_tower(image, input_size: int, wanted: Preprocessing) -> torch.Tensor:
    clip = {"image_size": 336, "patch_size": 14, "num_hidden_layers": 2}
    config = ToVEVisionConfig(clip_config=clip, input_size=input_size)
    pixels_B3HW = ToVEImageProcessor.for_tower(config)(image, return_tensors="pt")["pixel_values"]
    given = Preprocessing(config.image_size, tuple(config.image_mean), tuple(config.image_std))
    return prepare(pixels_B3HW, given, wanted)[0]


IMAGENET, HALF = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("name", SQUARE)
@pytest.mark.parametrize(("library", "norm"), [("timm", IMAGENET), ("open_clip", IMAGENET), ("transformers", HALF)])
def test_at_the_towers_own_size_an_expert_sees_exactly_what_its_library_gives(name, library, norm):
    own = librarys_own(library, photograph(name), 336, *norm)
    torch.testing.assert_close(
        through_the_tower(photograph(name), 336, Preprocessing(336, *norm)), own, atol=2e-6, rtol=0
    )


@pytest.mark.parametrize("name", SQUARE)
@pytest.mark.parametrize(("library", "norm"), [("timm", IMAGENET), ("transformers", HALF)])
def test_at_another_size_within_a_twelfth_of_a_standard_deviation_and_closer_with_more_pixels(name, library, norm):
    """The mean error in normalised units; benchmarks/pixel_path.py has the figures for each expert."""
    own = librarys_own(library, photograph(name), 518, *norm)
    wanted = Preprocessing(518, *norm)
    few, many = ((through_the_tower(photograph(name), size, wanted) - own).abs().mean() for size in (336, 1008))
    assert few < 0.08
    assert many < 0.03
    assert many < few


def test_bfloat16_pixels_cost_what_bfloat16_costs():
    """Undo and redo happen in float32: nothing is added to the rounding of the pixels on their way in and out."""
    rgb = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted, given = Preprocessing(32, *IMAGENET), GIVEN._replace(size=32)
    exact = prepare(normalised(rgb), given, wanted)
    torch.testing.assert_close(
        exact, (rgb - torch.tensor(wanted.mean).view(1, 3, 1, 1)) / torch.tensor(wanted.std).view(1, 3, 1, 1)
    )
    rounded = prepare(normalised(rgb).bfloat16(), given, wanted)
    assert rounded.dtype == torch.bfloat16
    once = (exact.bfloat16() - exact).abs().mean()
    assert (rounded - exact).abs().mean() < 2.5 * once


def test_bicubic_stays_a_picture():
    picture = torch.zeros(1, 3, 8, 8)
    picture[..., 4:] = 1
    found = resized(picture, 24, mode="bicubic")
    assert (found.min(), found.max()) == (0, 1)
    assert found.mean() == pytest.approx(0.5, abs=1e-6)
