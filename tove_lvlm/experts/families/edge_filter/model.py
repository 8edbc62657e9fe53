"""Low-level expert: a classical edge filter of kornia, Canny or Sobel, without weights.

Shapes: B images, H W pixels.

See docs/design.md, "Experts".
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch

from ....registry import require
from ...base import EXPERTS, Expert
from ...pictures import probability_picture
from .config import EdgeFilterConfig


@EXPERTS.register("edge_filter")
class EdgeFilter(Expert):
    """Low level: edges by kornia's Canny or Sobel filter; nothing is learned."""

    kind = "low_level"
    library = EdgeFilterConfig.library.name
    bf16_bound = 0.3  # a pixel near a threshold of Canny falls on its other side

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__(fields)
        _kornia()

    @classmethod
    def shape_of(cls, fields: Mapping[str, Any]) -> tuple[int, int, int]:
        return 1, fields["image_size"], fields["image_size"]

    @classmethod
    def architecture_of(cls, fields: Mapping[str, Any]) -> str:
        return str(fields["filter"])

    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """Edges (B, 1, H, W): 0 or 1 of Canny (with 0.5 between where hysteresis is off), the gradient of Sobel."""
        fields, kornia = self.fields, _kornia()
        if fields["filter"] == "sobel":
            return kornia.filters.sobel(kornia.color.rgb_to_grayscale(pixels_B3HW))
        if pixels_B3HW.is_meta:  # how often hysteresis goes round depends on an image, and here is none
            return pixels_B3HW[:, :1]
        return kornia.filters.canny(pixels_B3HW, fields["low"], fields["high"], hysteresis=fields["hysteresis"])[1]

    def picture(self, grid_BCHW: torch.Tensor) -> torch.Tensor:
        """Edges white on black; Sobel's gradient is stretched over the image."""
        return super().picture(grid_BCHW) if self.fields["filter"] == "sobel" else probability_picture(grid_BCHW)


def _kornia() -> ModuleType:
    return require("kornia", extra="experts")
