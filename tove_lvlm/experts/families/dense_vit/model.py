"""Low-level expert: a plain ViT that predicts a map (depth, normals, edges), one linear head per patch.

Shapes: B images, D width, C map channels, h w patch grid, p patch side, H W pixels.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ....registry import require
from ...base import EXPERTS, Expert
from .config import DenseViTConfig


@EXPERTS.register("dense_vit")
class DenseViT(Expert):
    """Low level: a ViT (timm's, no class token) with a per-patch linear head, read as a full-resolution map."""

    kind = "low_level"
    library = DenseViTConfig.library.name
    bf16_bound = 0.02
    patch_size: int

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__(fields)
        vit = require("timm.models.vision_transformer", extra="experts").VisionTransformer
        self.patch_size, self.map_channels = fields["patch_size"], fields["channels"]
        self.side = fields["image_size"] // fields["patch_size"]
        # global_pool="" and no classes: calling it gives the normalised tokens.
        self.vit = vit(
            img_size=fields["image_size"],
            patch_size=fields["patch_size"],
            embed_dim=fields["width"],
            depth=fields["depth"],
            num_heads=fields["heads"],
            mlp_ratio=fields["mlp_ratio"],
            class_token=False,
            global_pool="",
            num_classes=0,
        )
        self.head = nn.Linear(fields["width"], self.map_channels * self.patch_size**2)
        self.remember_meta_device()

    @classmethod
    def shape_of(cls, fields: Mapping[str, Any]) -> tuple[int, int, int]:
        if fields["output"] == "map":
            return fields["channels"], fields["image_size"], fields["image_size"]
        side = fields["image_size"] // fields["patch_size"]
        return fields["width"], side, side

    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        tokens_BND = self.vit(pixels_B3HW)
        if self.spec.output == "features":
            return _to_grid(tokens_BND, self.side)
        # (B, h*w, C*p*p) -> (B, C*p*p, h, w) -> (B, C, h*p, w*p)
        return F.pixel_shuffle(_to_grid(self.head(tokens_BND), self.side), self.patch_size)


def _to_grid(tokens_BND: torch.Tensor, side: int) -> torch.Tensor:
    return tokens_BND.transpose(1, 2).unflatten(2, (side, side))
