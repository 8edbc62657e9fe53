"""Low-level expert: HED, holistically-nested edges.

Shapes: B images, C channels, H W sides of the grid.

See docs/design.md, "Experts".
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ...base import EXPERTS, Expert
from ...pictures import probability_picture

_WIDTHS = (64, 128, 256, 512, 512)
_DEPTHS = (2, 2, 3, 3, 3)


@EXPERTS.register("hed")
class HED(Expert):
    """Low level: edges by HED; the fused map as a probability, or its last stage's features."""

    kind = "low_level"
    bf16_bound = 0.02
    patch_size = 16
    fixed_shape = (1, _WIDTHS[-1], 16)

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__(fields)
        self.norm = nn.Parameter(torch.zeros(1, 3, 1, 1))  # the mean RGB over 0..255, which is a weight here
        for index, depth in enumerate(_DEPTHS):
            channels = _WIDTHS[index - 1] if index else 3
            self.add_module(f"block{index + 1}", _Stage(channels, _WIDTHS[index], depth))
        self.fuse = nn.Conv2d(len(_DEPTHS), 1, kernel_size=1)

    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """Edge probability (B, 1, H, W), or the last stage's features (B, 512, H/16, W/16)."""
        x_BCHW, sides, is_map = pixels_B3HW - self.norm, [], self.spec.output == "map"
        for index in range(len(_DEPTHS)):
            if index:
                x_BCHW = F.max_pool2d(x_BCHW, 2)
            stage = getattr(self, f"block{index + 1}")
            x_BCHW = stage(x_BCHW)
            if is_map:
                side_B1HW = stage.projection(x_BCHW)
                size = pixels_B3HW.shape[-2:]
                sides.append(F.interpolate(side_B1HW, size=size, mode="bilinear", align_corners=False))
        return self.fuse(torch.cat(sides, dim=1)).sigmoid() if is_map else x_BCHW

    def picture(self, grid_BCHW: torch.Tensor) -> torch.Tensor:
        """Edges white on black, as they are: probability 1 is white."""
        return probability_picture(grid_BCHW)

    def adapt_weights(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keys are those of `ControlNetHED.pth`, with or without a fusion."""
        if any(key.startswith("fuse.") for key in tensors):
            return tensors
        mean = {"fuse.weight": torch.full((1, len(_DEPTHS), 1, 1), 1 / len(_DEPTHS)), "fuse.bias": torch.zeros(1)}
        return {**tensors, **mean}


class _Stage(nn.Module):
    """One stage of VGG-16; `projection` makes its side output."""

    def __init__(self, in_channels: int, channels: int, depth: int):
        super().__init__()
        widths = [in_channels] + [channels] * depth
        self.convs = nn.ModuleList(nn.Conv2d(widths[k], widths[k + 1], 3, padding=1) for k in range(depth))
        self.projection = nn.Conv2d(channels, 1, kernel_size=1)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            x_BCHW = conv(x_BCHW).relu()
        return x_BCHW
