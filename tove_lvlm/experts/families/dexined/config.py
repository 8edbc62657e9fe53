"""Fields of the family `dexined`, checked without importing torch.

    {name: edges, family: dexined, pretrained: FILE}

DexiNed is six blocks that each draw edges at a scale of their own, and a layer that fuses these. kornia brings the
network; its published file, and that of its `EdgeDetector`, are the weights.

See docs/design.md, "Experts".
"""

from dataclasses import dataclass, field
from typing import ClassVar

from ...libraries import KORNIA
from ...schema import EXPERT_CONFIGS, OUTPUTS, ExpertConfig


@EXPERT_CONFIGS.register("dexined")
@dataclass(frozen=True, kw_only=True)
class DexiNedConfig(ExpertConfig):
    """DexiNed's edges."""

    library: ClassVar = KORNIA
    output: str = field(default="map", metadata={"choices": OUTPUTS})
    """`map`: edge probability. `features`: its last block's, 256 channels at a sixteenth of the image."""
    image_size: int = 352
    """As kornia's detector resizes."""
    mean: list[float] = field(default_factory=lambda: [123.68 / 255, 116.779 / 255, 103.939 / 255])
    """The network reads 0..255 less this, in BGR; here as RGB."""
    std: list[float] = field(default_factory=lambda: [1 / 255, 1 / 255, 1 / 255])
    """Leaves 0..255."""
