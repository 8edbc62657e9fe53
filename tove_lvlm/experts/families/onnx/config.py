"""Fields of the family `onnx`, checked without importing torch.

    {name: saliency, family: onnx, image_size: 320, output: map, pretrained: u2net.onnx}
    {name: dino, family: onnx, output: features, output_layout: tokens, result: last_hidden_state, pretrained: FILE}

The file may be one that any library exported, with its weights inside. A saved tower holds the file's bytes.

See docs/design.md, "Experts".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ...exported.arrays import Run
from ...exported.config import GridConfig
from ...schema import EXPERT_CONFIGS, Library

ONNXRUNTIME = Library(name="onnxruntime", module="onnxruntime", extra="onnx", license="mit")


@EXPERT_CONFIGS.register("onnx")
@dataclass(frozen=True, kw_only=True)
class OnnxConfig(GridConfig):
    """A network in an ONNX file; channels and grid are read off it."""

    library: ClassVar = ONNXRUNTIME

    @classmethod
    def open(cls, content: bytes, fields: Mapping[str, Any], threads: int = 1, on_cuda: bool = False) -> Run:
        """As `ExportedConfig.open`."""
        from .session import open_session

        return open_session(content, fields, threads, on_cuda)
