"""Photographs on which the networks are held against their sources: scikit-image's own.

Shapes: H W pixels.
"""

import torch
import torch.nn.functional as F

from tove_lvlm.registry import require


def photograph(name: str, size: int) -> torch.Tensor:
    """(1, 3, size, size) RGB in 0..1: the middle square of one of scikit-image's photographs.

    Args:
        name: `chelsea` (a cat), `astronaut` (a person), `coffee` (a cup).
        size: Side in pixels.
    """
    picture_HW3 = torch.from_numpy(getattr(require("skimage.data", extra="test"), name)())
    picture_13HW = picture_HW3.permute(2, 0, 1)[None].float() / 255
    height, width = picture_13HW.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = picture_13HW[..., top : top + side, left : left + side]
    return F.interpolate(square, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
