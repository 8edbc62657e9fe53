"""Low-level expert: DexiNed's edges, kornia's network.

Shapes: B images, C channels, H W sides of the grid.

See docs/design.md, "Experts".
"""

from collections.abc import Mapping
from typing import Any

import torch

from ....registry import require
from ...base import EXPERTS, Expert
from ...pictures import probability_picture
from .config import DexiNedConfig


@EXPERTS.register("dexined")
class DexiNed(Expert):
    """Low level: edges by DexiNed of kornia; the fused map as a probability, or its last block's features."""

    kind = "low_level"
    library = DexiNedConfig.library.name
    patch_size = 16  # four halvings, so that a grid of features has a plain size
    fixed_shape = (1, 256, 16)

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__(fields)
        self.network = require("kornia.models.dexined", extra="experts").DexiNed(pretrained=False)
        if fields["output"] == "features":
            for level in range(1, 7):
                setattr(self.network, f"up_block_{level}", _Pass())
            self.network.block_cat = torch.nn.Identity()

    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """Edge probability (B, 1, H, W), or the last block's features (B, 256, H/16, W/16).

        The network reads BGR; mean and std of the fields are those of RGB.
        """
        if self.spec.output == "features":
            return self.network.get_features(pixels_B3HW.flip(1))[-1]
        return self.network(pixels_B3HW.flip(1)).sigmoid()

    def picture(self, grid_BCHW: torch.Tensor) -> torch.Tensor:
        """Edges white on black, as they are: probability 1 is white."""
        return probability_picture(grid_BCHW)

    def adapt_weights(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keys of kornia's published file, or of its `EdgeDetector`, where the network is a part."""
        prefixes = {key.removesuffix("block_1.conv1.weight") for key in tensors if key.endswith("block_1.conv1.weight")}
        prefix = min(prefixes, default="")
        bare = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
        unused = ("up_block_", "block_cat.") if self.spec.output == "features" else ()
        return {f"network.{key}": tensor for key, tensor in bare.items() if not key.startswith(unused)}


class _Pass(torch.nn.Module):
    """In place of a block that draws a side output: gives what the block would read."""

    def forward(self, grid_BCHW: torch.Tensor, size: list[int]) -> torch.Tensor:
        return grid_BCHW
