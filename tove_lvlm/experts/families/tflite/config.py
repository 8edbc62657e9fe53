"""Fields of the family `tflite`, checked without importing torch.

    {name: person, family: tflite, image_size: 256, output: map, pretrained: selfie_segmentation.tflite}

A saved tower holds the file's bytes. Inputs of whole numbers take 0..255: `mean: [0, 0, 0]`, `std` 1/255.

See docs/design.md, "Experts".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...exported.arrays import INPUT_LAYOUTS, OUTPUT_LAYOUTS, Run
from ...exported.config import GridConfig
from ...schema import EXPERT_CONFIGS, Library

LITERT = Library(name="LiteRT", module="ai_edge_litert", extra="tflite", license="apache-2.0")


@EXPERT_CONFIGS.register("tflite")
@dataclass(frozen=True, kw_only=True)
class TfliteConfig(GridConfig):
    """A network in a TFLite file; channels and grid are read off it."""

    library: ClassVar = LITERT
    input_layout: str = field(default="nhwc", metadata={"choices": INPUT_LAYOUTS})
    output_layout: str = field(default="nhwc", metadata={"choices": OUTPUT_LAYOUTS})

    @classmethod
    def open(cls, content: bytes, fields: Mapping[str, Any], threads: int = 1, on_cuda: bool = False) -> Run:
        """As `ExportedConfig.open`; on the CPU whatever is asked."""
        from .interpreter import open_interpreter

        return open_interpreter(content, fields, threads)
