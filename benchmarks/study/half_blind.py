"""Experts that are right on one side of the picture and wrong on the other, so that tokens need different experts.

On its blind side such an expert sees the mirror image of the other: plausible, and nothing in its features tells that
it is wrong. Only the place does, which CLIP's tokens know and the gate can use.

Shapes: B images, H W pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from tove_lvlm.experts.base import EXPERTS
from tove_lvlm.experts.families.dense_vit.config import DenseViTConfig
from tove_lvlm.experts.families.dense_vit.model import DenseViT
from tove_lvlm.experts.schema import EXPERT_CONFIGS


@EXPERT_CONFIGS.register("half_blind")
@dataclass(frozen=True, kw_only=True)
class HalfBlindConfig(DenseViTConfig):
    """A dense expert's fields and the side that it sees."""

    sees: str = field(default="left", metadata={"choices": ("left", "right")})


@EXPERTS.register("half_blind")
class HalfBlind(DenseViT):
    """Low level: a dense ViT whose blind half of the picture is the mirror image of the half that it sees."""

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__(fields)
        self.sees = fields["sees"]

    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        return super().encode(mirror(pixels_B3HW, self.sees))


def mirror(pixels_B3HW: torch.Tensor, sees: str) -> torch.Tensor:
    """The picture with one half in place of both, the other one mirrored."""
    half = pixels_B3HW.shape[-1] // 2
    if sees == "left":
        return torch.cat([pixels_B3HW[..., :half], pixels_B3HW[..., :half].flip(-1)], dim=-1)
    return torch.cat([pixels_B3HW[..., -half:].flip(-1), pixels_B3HW[..., -half:]], dim=-1)
