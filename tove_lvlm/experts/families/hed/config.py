"""Fields of the family `hed`, checked without importing torch.

    {name: edges, family: hed, pretrained: FILE}
    {name: edges, family: hed, pretrained: FILE, output: features}
    {name: edges, family: hed, pretrained: OWNER/NAME, file: ControlNetHED.pth}

HED is VGG-16's five stages, a side output of each, and their fusion. Two kinds of weights are read: those of the
paper's own model (converted by scripts/convert_hed.py), and `ControlNetHED.pth`, which has no fusion layer because it
takes the mean of the side outputs: that is a fusion with weights 1/5.

See docs/design.md, "Experts".
"""

from dataclasses import dataclass, field

from ...schema import EXPERT_CONFIGS, OUTPUTS, ExpertConfig


@EXPERT_CONFIGS.register("hed")
@dataclass(frozen=True, kw_only=True)
class HEDConfig(ExpertConfig):
    """HED's edges: holistically-nested edge detection, a network of this package."""

    output: str = field(default="map", metadata={"choices": OUTPUTS})
    """`map`: edge probability, the five side outputs fused. `features`: the last stage's, 512 channels at a
    sixteenth of the image, without side outputs and fusion."""
    mean: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """None is subtracted: the mean is a weight of this network, which its file brings."""
    std: list[float] = field(default_factory=lambda: [1 / 255, 1 / 255, 1 / 255])
    """Leaves 0..255, on which both kinds of weights were trained."""
