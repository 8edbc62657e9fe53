"""From the tower's pixels to an expert's: undo one normalisation, resize, apply another.

Shapes: B images, H W pixels. Mean and std are Python floats everywhere: a tensor kept as a buffer would hold garbage
after `from_pretrained` on the meta device.

See docs/design.md, "Input pixels".
"""

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F


class Preprocessing(NamedTuple):
    """What an expert wants to see; experts with an equal one share one prepared tensor."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def prepare(
    pixels_B3HW: torch.Tensor, source: Preprocessing, target: Preprocessing, mode: str = "bicubic"
) -> torch.Tensor:
    """Pixels as `target` asks.

    Args:
        pixels_B3HW: Normalised as `source` says.
        source: Size, mean and std of the pixels.
        target: Size, mean and std to produce.
        mode: As for `resized`.

    Returns:
        (B, 3, size, size) in the dtype of the input; the input itself when nothing differs.
    """
    if source == target:
        return pixels_B3HW
    return normalised(resized(picture(pixels_B3HW, source), target.size, mode), target).to(pixels_B3HW.dtype)


def picture(pixels_B3HW: torch.Tensor, source: Preprocessing) -> torch.Tensor:
    """The picture that was normalised: RGB in float32, 0 to 1.

    Args:
        pixels_B3HW: Normalised as `source` says.
        source: Their size, mean and std.
    """
    x_B3HW = pixels_B3HW.float()
    return x_B3HW * _channels(source.std, x_B3HW) + _channels(source.mean, x_B3HW)


def resized(picture_B3HW: torch.Tensor, size: int, mode: str = "bicubic") -> torch.Tensor:
    """A picture of another size, (B, 3, size, size); itself when it has that size.

    Args:
        picture_B3HW: RGB, 0 to 1.
        size: Side in pixels.
        mode: `bicubic`, which stays within 0 to 1 as Pillow's does, or `bilinear`.
    """
    if picture_B3HW.shape[-2:] == (size, size):
        return picture_B3HW
    x_B3HW = F.interpolate(picture_B3HW, size=size, mode=mode, align_corners=False, antialias=True)
    return x_B3HW.clamp(0, 1) if mode == "bicubic" else x_B3HW


def normalised(picture_B3HW: torch.Tensor, target: Preprocessing) -> torch.Tensor:
    """A picture with the mean and std of `target`, float32."""
    return (picture_B3HW - _channels(target.mean, picture_B3HW)) / _channels(target.std, picture_B3HW)


def _channels(values: tuple[float, ...], like: torch.Tensor) -> torch.Tensor:
    """(1, 3, 1, 1); made once for a device, because the host waits for each copy to it."""
    if type(like) is not torch.Tensor or torch.compiler.is_compiling():  # traced: what is made is not a value
        return _new_channels(values, like.dtype, like.device)
    return _kept_channels(values, like.dtype, like.device)


def _new_channels(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device=device).view(1, 3, 1, 1)


@lru_cache(maxsize=256)
def _kept_channels(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    with torch.inference_mode(False):  # a later caller may want gradients
        return _new_channels(values, dtype, device)
