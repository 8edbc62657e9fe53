"""From the tower's pixels to an expert's: undo one normalisation, resize, apply another. DESIGN.md section 2.

Shapes: B images, H W pixels. Mean and std are Python floats everywhere: a tensor kept as a buffer would hold garbage
after `from_pretrained` on the meta device.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F


class Preprocessing(NamedTuple):
    """What an expert wants to see; experts with an equal one share one prepared tensor."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def prepare(pixels_B3HW: torch.Tensor, given: Preprocessing, wanted: Preprocessing) -> torch.Tensor:
    """Pixels as `wanted` asks.

    Args:
        pixels_B3HW: Normalised as `given` says.
        given: Size, mean and std of the pixels.
        wanted: Size, mean and std to produce.

    Returns:
        (B, 3, size, size) in the dtype of the input; the input itself when nothing differs.
    """
    if given == wanted:
        return pixels_B3HW
    x_B3HW = pixels_B3HW.float()
    x_B3HW = x_B3HW * _channels(given.std, x_B3HW) + _channels(given.mean, x_B3HW)
    if wanted.size != given.size:
        x_B3HW = F.interpolate(x_B3HW, size=wanted.size, mode="bilinear", align_corners=False, antialias=True)
    x_B3HW = (x_B3HW - _channels(wanted.mean, x_B3HW)) / _channels(wanted.std, x_B3HW)
    return x_B3HW.to(pixels_B3HW.dtype)


def _channels(values: tuple[float, ...], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, 3, 1, 1)
