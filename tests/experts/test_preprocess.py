"""From one normalisation and size to another, by hand."""

import torch

from tove_lvlm.experts.preprocess import Preprocessing, prepare

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
    found = prepare(normalised(rgb), GIVEN, Preprocessing(2, (0.0,) * 3, (1.0,) * 3))
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
