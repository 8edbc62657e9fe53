"""From an expert's grid to CLIP's tokens: stem, resampling, LayerNorm and a two-layer MLP.

    e_k = fc2_k(gelu(fc1_k(LN(resample(grid_k)))))      fc2 starts at zero (our choice; a switch)

With `fusion.transfer: shared_out` there is one fc2 for all experts, which is the fusion's; with `shared` all of it is
one for all.

Shapes: B images, C channels and h w sides of an expert's grid, N tokens, D width.

See docs/design.md, "Transfer".
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..experts import ExpertSpec
from .init import FAN_IN, STEM, ZERO, set_init

NUM_STEM_CONVS = 4


class MapStem(nn.Sequential):
    """Four 3x3 convs that bring a predicted map near the token grid, with stride 2 as often as its size demands.

    Without a norm: statistics over an image would take away the level that a depth map is about.

    Args:
        in_channels: C of the map.
        map_size: Side of the map.
        side: Tokens along a side.
        width: Channels of the result; a multiple of 8.
    """

    def __init__(self, in_channels: int, map_size: int, side: int, width: int):
        halvings = min(NUM_STEM_CONVS, max(0, int(math.log2(map_size / side))))
        widths = [in_channels, width // 8, width // 4, width // 2, width]
        layers: list[nn.Module] = []
        for index in range(NUM_STEM_CONVS):
            stride = 2 if index < halvings else 1
            conv = nn.Conv2d(widths[index], widths[index + 1], kernel_size=3, stride=stride, padding=1)
            layers += [set_init(conv, STEM), nn.GELU()]
        super().__init__(*layers)


class Transfer(nn.Module):
    """One expert's way into the tokens, or up to the layer that all experts share.

    Args:
        spec: The expert.
        side: Tokens along a side.
        width: D.
        hidden: Hidden width of the MLP.
        stem_width: Channels of the conv stem, for an expert whose output is a map.
        zero_init: Whether the last layer starts at zero.
        has_out: Whether the last layer is the expert's own; else what the MLP's first gives is given.
    """

    def __init__(
        self,
        spec: ExpertSpec,
        side: int,
        width: int,
        hidden: int,
        stem_width: int,
        zero_init: bool,
        has_out: bool = True,
    ):
        super().__init__()
        self.name, self.side, self.channels = spec.name, side, spec.channels
        self.stem, channels = None, spec.channels
        if spec.output == "map":
            self.stem = MapStem(spec.channels, min(spec.grid), side, stem_width)
            channels = stem_width
        self.norm = nn.LayerNorm(channels)
        self.fc1 = set_init(nn.Linear(channels, hidden), FAN_IN)
        self.act = nn.GELU()
        self.fc2 = out_layer(hidden, width, zero_init) if has_out else None

    def forward(self, grid_BChw: torch.Tensor) -> torch.Tensor:
        """Tokens `e_k`, (B, N, D); without a last layer of its own (B, N, hidden).

        Args:
            grid_BChw: The expert's features or map.
        """
        grid_BChw = grid_BChw.to(self.norm.weight.dtype)
        if self.stem is not None:
            grid_BChw = self.stem(grid_BChw)
        tokens_BNC = resample(grid_BChw, self.side).flatten(2).transpose(1, 2)
        hidden_BNH: torch.Tensor = self.act(self.fc1(self.norm(tokens_BNC)))
        return hidden_BNH if self.fc2 is None else self.fc2(hidden_BNH)


def out_layer(hidden: int, width: int, zero_init: bool) -> nn.Linear:
    """The last layer of a transfer's MLP.

    Args:
        hidden: Its input.
        width: D.
        zero_init: Whether it starts at zero.
    """
    return set_init(nn.Linear(hidden, width), ZERO if zero_init else FAN_IN)


def resample(grid_BChw: torch.Tensor, side: int) -> torch.Tensor:
    """Bilinear resampling to (B, C, side, side), antialiased where the grid shrinks; the same tensor when it fits.

    Args:
        grid_BChw: Any float dtype, which the result has too.
        side: Tokens along a side.
    """
    if grid_BChw.shape[-2:] == (side, side):
        return grid_BChw
    shrinks = min(grid_BChw.shape[-2:]) > side
    resampled = F.interpolate(grid_BChw.float(), size=(side, side), mode="bilinear", antialias=shrinks)
    return resampled.to(grid_BChw.dtype)
