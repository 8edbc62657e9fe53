"""Depth experts that are right in a domain only, and confidently wrong outside of it: what a gate has to sort out.

All of them come from one network (stage `domains` of scripts/build_miniature.py) that predicts, for each pixel, the
depth, what an observer would say who takes large objects for near ones, whether its object has a warm, a cool or a
neutral colour, and how bright the picture's ground is. An expert's domain is then a kind of object, so that tokens of
one picture need different experts, or a kind of picture:

    domain        right on                                  wrong on
    warm          warm and neutral objects, background      cool objects
    cool          cool and neutral objects, background      warm objects
    bright        pictures on a bright or a middle ground   pictures on a dark ground
    dark          pictures on a dark or a middle ground     pictures on a bright ground

Where two experts mirror each other without a case that both answer rightly, which of them lies cannot be told from the
answers: the middle kind is there for that.

Shapes: B images, H W pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tove_lvlm.experts.base import EXPERTS
from tove_lvlm.experts.families.dense_vit.config import DenseViTConfig
from tove_lvlm.experts.families.dense_vit.model import DenseViT
from tove_lvlm.experts.schema import EXPERT_CONFIGS

NUM_CHANNELS = 6
NEUTRAL, WARM, COOL = range(3)
OUTSIDE = {"warm": COOL, "cool": WARM}
MIDDLE = 1 / 3
"""Grounds are uniform in -1 to 1; a third of the pictures has a middle one."""
UPSAMPLE = 2
"""A map of 128 pixels: the conv stem then sees 2 tokens far, as with DPT's map of 384 pixels and 24 x 24 tokens. From
64 pixels it sees 4, and the wrong answers about one object blur the right ones about its neighbours."""
MIRROR = 1.40
"""Near and far objects change places: relative depth of objects is .49 to .91."""


@EXPERT_CONFIGS.register("domain_depth")
@dataclass(frozen=True, kw_only=True)
class DomainDepthConfig(DenseViTConfig):
    """A dense expert's fields and what it is right about."""

    channels: int = field(default=1, metadata={"choices": (1,)})
    domain: str = field(metadata={"choices": ("all", "warm", "cool", "bright", "dark")})
    """`all`: right everywhere."""
    wrong: str = field(default="unrelated", metadata={"choices": ("unrelated", "inverted")})
    """Outside of the domain: a depth that has nothing to do with the true one, or the mirrored one."""


@EXPERTS.register("domain_depth")
class DomainDepth(DenseViT):
    """Low level: a depth map that is right in a domain only."""

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__(fields)
        self.domain, self.wrong = fields["domain"], fields["wrong"]
        self.map_channels = NUM_CHANNELS
        self.head = nn.Linear(fields["width"], NUM_CHANNELS * self.patch_size**2)

    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        depth_B1HW, by_size_B1HW, kind_B3HW, ground_B1HW = super().encode(pixels_B3HW).split([1, 1, 3, 1], dim=1)
        wrong_B1HW = by_size_B1HW if self.wrong == "unrelated" else MIRROR - depth_B1HW
        found_B1HW = torch.where(self._outside(kind_B3HW, ground_B1HW), wrong_B1HW, depth_B1HW)
        return F.interpolate(found_B1HW, scale_factor=UPSAMPLE, mode="nearest")

    @classmethod
    def shape_of(cls, fields: Mapping[str, Any]) -> tuple[int, int, int]:
        return 1, UPSAMPLE * fields["image_size"], UPSAMPLE * fields["image_size"]

    def _outside(self, kind_B3HW: torch.Tensor, ground_B1HW: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) bool: where it is wrong."""
        kind_B1HW = kind_B3HW.argmax(dim=1, keepdim=True)
        if self.domain in OUTSIDE:
            return kind_B1HW == OUTSIDE[self.domain]
        ground_B111 = ground_B1HW.mean((1, 2, 3), keepdim=True)
        if self.domain == "bright":
            return ground_B111 < -MIDDLE
        if self.domain == "dark":
            return ground_B111 > MIDDLE
        return torch.zeros_like(kind_B1HW, dtype=torch.bool)
