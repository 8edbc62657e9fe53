"""Fields of the family `text_map`, checked without importing torch.

    {name: text, family: text_map, pretrained: package:rapidocr/models/PP-OCRv6_det_small.onnx}

PP-OCRv6's small detector is a convolutional network with a feature pyramid and the head of differentiable binarisation.
It is written in this package (pp_ocr.py); the published ONNX graph in the package rapidocr has the weights.

See docs/design.md, "Experts".
"""

from dataclasses import dataclass, field
from typing import ClassVar

from ...schema import EXPERT_CONFIGS, OUTPUTS, ExpertConfig, Library

RAPIDOCR = Library(name="rapidocr", module="rapidocr", extra="text", license="apache-2.0")


@EXPERT_CONFIGS.register("text_map")
@dataclass(frozen=True, kw_only=True)
class TextMapConfig(ExpertConfig):
    """PP-OCR's text detector: where lines of text are."""

    library: ClassVar = RAPIDOCR
    output: str = field(default="map", metadata={"choices": OUTPUTS})
    """`map`: probability of text. `features`: its neck's, 96 channels at a quarter of the image."""
    image_size: int = 672
    """A multiple of 32; small print needs many pixels."""
    mean: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    std: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
