"""Channel concatenation, what other multi-expert towers do: the baseline that ToVE is compared with.

    out = [t_clip; LN(resample(grid_1)); ...; LN(resample(grid_K))]        mixed by the projector

There is no gate and no residual: the output is as wide as all parts together. Maps go through the same conv stem as in
ToVE. The LayerNorm, without which a part of large values drowns the others, is our choice.

Shapes: B images, N tokens, D width of CLIP, C channels of a part, h w an expert's grid.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn

from ..config.tower import FusionConfig
from ..experts import ExpertSpec
from .init import init_weights
from .output import FusionOutput
from .transfer import MapStem, resample


class ConcatFusion(nn.Module):
    """Experts' channels beside CLIP's; takes the place of `ToVEFusion`.

    Args:
        specs: The experts, in order.
        side: Tokens along a side.
        settings: `stem_width` counts, the rest belongs to the gated kind.
    """

    def __init__(self, specs: Sequence[ExpertSpec], side: int, settings: FusionConfig):
        super().__init__()
        self.names, self.side = [spec.name for spec in specs], side
        self.stems, self.norms = nn.ModuleDict(), nn.ModuleDict()
        for spec in specs:
            if spec.output == "map":
                self.stems[spec.name] = MapStem(spec.channels, min(spec.grid), side, settings.stem_width)
            self.norms[spec.name] = nn.LayerNorm(part_width(spec, settings))
        self.apply(init_weights)

    def forward(
        self, t_clip_BND: torch.Tensor, grids: Mapping[str, torch.Tensor], weight_B: torch.Tensor
    ) -> FusionOutput:
        """Concatenate.

        Args:
            t_clip_BND: CLIP's tokens.
            grids: Name -> (B, C, h, w) of each attached expert; a detached one's channels are zero.
            weight_B: Not used; there is no balance loss.

        Returns:
            Tokens of width D + sum of the parts' channels; the gate's probabilities are zeros.
        """
        parts = [t_clip_BND]
        for name in self.names:
            norm = cast(nn.LayerNorm, self.norms[name])
            if name not in grids:
                parts.append(t_clip_BND.new_zeros(*t_clip_BND.shape[:2], norm.normalized_shape[0]))
                continue
            grid_BChw = grids[name].to(norm.weight.dtype)
            if name in self.stems:
                grid_BChw = self.stems[name](grid_BChw)
            tokens_BNC = resample(grid_BChw, self.side).flatten(2).transpose(1, 2)
            parts.append(norm(tokens_BNC).to(t_clip_BND.dtype))
        gate_BNK = t_clip_BND.new_zeros(*t_clip_BND.shape[:2], len(self.names), dtype=torch.float32)
        return FusionOutput(torch.cat(parts, dim=-1), gate_BNK, gate_BNK.new_zeros(()))


def part_width(spec: ExpertSpec, settings: FusionConfig) -> int:
    """Channels that an expert adds to the output."""
    return settings.stem_width if spec.output == "map" else spec.channels
