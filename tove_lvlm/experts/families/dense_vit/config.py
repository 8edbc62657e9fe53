"""Fields of the family `dense_vit`, checked without importing torch.

    {name: depth, family: dense_vit, width: 384, depth: 6, heads: 6, patch_size: 8, channels: 1, pretrained: FILE}

The config.json beside the weights may state the fields, so that the entry need not.

See docs/design.md, "Experts".
"""

from dataclasses import dataclass, field
from typing import ClassVar

from ....config import ConfigError
from ....config.ranges import number
from ...libraries import TIMM
from ...schema import EXPERT_CONFIGS, OUTPUTS, ExpertConfig


@EXPERT_CONFIGS.register("dense_vit")
@dataclass(frozen=True, kw_only=True)
class DenseViTConfig(ExpertConfig):
    """A plain ViT with a per-patch linear head that predicts a full-resolution map."""

    library: ClassVar = TIMM
    output: str = field(default="map", metadata={"choices": OUTPUTS})
    """`map`: what the head predicts, as large as the image. `features`: the ViT's tokens."""
    width: int = field(metadata=number(low=1, high=2**16))
    """Of the ViT's tokens."""
    depth: int = field(metadata=number(low=1, high=2**16))
    """Number of blocks."""
    heads: int = field(metadata=number(low=1, high=2**16))
    """Attention heads of a block."""
    patch_size: int = field(metadata=number(low=1, high=2**16))
    """Side of a patch in pixels."""
    channels: int = field(metadata=number(low=1, high=2**16))
    """Channels of the predicted map."""
    mlp_ratio: float = field(default=4.0, metadata=number(above=0, high=2**10))
    """Hidden width of a block's MLP over `width`."""

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.heads:
            raise ConfigError(f"expert `{self.name}`: `width` {self.width} is not a multiple of `heads` {self.heads}")
        if self.image_size % self.patch_size:
            raise ConfigError(
                f"expert `{self.name}`: `image_size` {self.image_size} is not a multiple of `patch_size` "
                f"{self.patch_size}"
            )
