"""Low-level expert: where text is, by PP-OCRv6's small detector (pp_ocr.py).

Its weights are an ONNX file in the package rapidocr, read by onnx_weights.py; a saved tower holds them as tensors.

Shapes: B images, C channels, H W sides of the grid.

See docs/design.md, "Experts".
"""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .... import storage
from ...base import EXPERTS, Expert
from .config import TextMapConfig
from .onnx_weights import read_convolutions
from .pp_ocr import NECK, TextDetector


@EXPERTS.register("text_map")
class TextMap(Expert):
    """Low level: text by PP-OCR's detector, weights in rapidocr; the probability map, or its neck's features."""

    kind = "low_level"
    library = TextMapConfig.library.name
    patch_size = 32
    fixed_shape = (1, NECK, 4)

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__(fields)
        self.network = TextDetector()

    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """Probability of text (B, 1, H, W), or the neck's features (B, 96, H/4, W/4). The network reads BGR."""
        run = self.network if self.spec.output == "map" else self.network.features
        return run(pixels_B3HW.flip(1))

    def picture(self, grid_BCHW: torch.Tensor) -> torch.Tensor:
        """Text as heat: black, red, yellow, white."""
        heat_B1HW = grid_BCHW.float().clamp(0, 1) * 3
        heat_B3HW = torch.cat([heat_B1HW - step for step in range(3)], dim=1).clamp(0, 1) * 255
        return heat_B3HW.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def load_pretrained(self, path: str | os.PathLike[str]) -> None:
        """As `Expert.load_pretrained`; besides the usual formats the published ONNX graph.

        Raises:
            ImportError: The package `onnx` is absent.
        """
        files = storage.weight_files(path)
        if files[0].suffix != ".onnx":
            super().load_pretrained(path)
            return
        layers = [
            (f"network.{name}", layer)
            for name, layer in self.network.named_modules()
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        ]
        tensors: dict[str, torch.Tensor] = {}
        convolutions = read_convolutions(files[0])
        if len(convolutions) != len(layers):
            raise storage.WeightsError(
                f"weights `{files[0]}` have {len(convolutions)} convolutions; PP-OCRv6's small detector has "
                f"{len(layers)}"
            )
        for (name, _), (weight, bias) in zip(layers, convolutions, strict=True):
            tensors[f"{name}.weight"] = weight
            if bias is not None:
                tensors[f"{name}.bias"] = bias
        storage.load_strict(self, tensors, where=files[0])
