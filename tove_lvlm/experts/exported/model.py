"""An expert whose network is a file that another runtime runs. The tower keeps the file's bytes as a tensor.

The runtime's answer has no gradient, which a frozen expert needs none of. A network's parameters are not torch's: they
are not counted, cast or sharded, and neither are its FLOPs.

Shapes: B images, C channels of the grid, h w its sides.

See docs/design.md, "Experts".
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, cast

import torch

from ... import storage
from ...config import ConfigError
from ..base import Expert, ExpertSpec
from ..pictures import probability_picture
from ..schema import expert_config_class
from .arrays import Run
from .config import ExportedConfig


class ExportedNetwork(Expert):
    """Base of the families `onnx`, `tflite` and `detector`; the runtime is `ExportedConfig.open` of the family."""

    file: torch.Tensor
    """The network's file, (bytes,) uint8."""

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__(fields)
        self.register_buffer("file", torch.zeros(fields["file_bytes"], dtype=torch.uint8))
        self._opened: tuple[Any, Run] | None = None

    @classmethod
    def describe(cls, fields: Mapping[str, Any]) -> ExpertSpec:
        """As `Expert.describe`: what predicts a map is low level, what gives features is an embedding."""
        kind = "low_level" if fields["output"] == "map" else "embedding"
        return dataclasses.replace(super().describe(fields), kind=kind)

    @classmethod
    def shape_of(cls, fields: Mapping[str, Any]) -> tuple[int, int, int]:
        if _config(fields).needs_file(fields):
            names = ", ".join(f"`{name}`" for name in _config(fields).read_off_file)
            raise ConfigError(
                f"expert `{fields['name']}`: {names} are read off the network's file, and there is none here; let "
                "`pretrained` name the file, or state them"
            )
        return (fields["channels"], *fields["grid"])

    @torch.compiler.disable  # there is nothing of torch to compile
    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """What the runtime gives, (B, C, h, w) in the dtype and on the device of the pixels."""
        if pixels_B3HW.is_meta:
            return pixels_B3HW.new_empty(len(pixels_B3HW), *self.shape_of(self.fields))
        ordered_B3HW = pixels_B3HW.flip(1) if self.fields["channel_order"] == "bgr" else pixels_B3HW
        grid_BChw = self._run(pixels_B3HW.device)(ordered_B3HW.detach().float().cpu().numpy())
        return torch.from_numpy(grid_BChw).to(pixels_B3HW)

    def picture(self, grid_BCHW: torch.Tensor) -> torch.Tensor:
        """A map of one channel in 0..1 as it is, any other stretched."""
        is_probability = grid_BCHW.shape[1] == 1 and 0 <= float(grid_BCHW.min()) <= float(grid_BCHW.max()) <= 1
        return probability_picture(grid_BCHW) if is_probability else super().picture(grid_BCHW)

    def load_pretrained(self, path: str | os.PathLike[str]) -> None:
        """As `Expert.load_pretrained`; besides safetensors, which hold the file's bytes, the file itself.

        Raises:
            ImportError: The runtime is absent.
        """
        file = storage.weight_files(path)[0]
        if file.suffix in storage.WEIGHT_SUFFIXES:
            super().load_pretrained(path)
        else:
            content = torch.frombuffer(bytearray(_config(self.fields).content(file)), dtype=torch.uint8)
            storage.load_strict(self, {"file": content}, where=file)
        try:
            self._run(self.file.device)  # a damaged file is found now, not at the first image
        except storage.WeightsError as error:
            raise storage.WeightsError(f"weights `{file}`: {error}") from error

    def _run(self, device: torch.device) -> Run:
        buffer = self.file
        version = 0 if buffer.is_inference() else buffer._version  # the former cannot be changed in place outside
        key = (buffer.data_ptr(), version, str(device), torch.get_num_threads())
        if self._opened is None or self._opened[0] != key:
            content, on_cuda = buffer.cpu().numpy().tobytes(), device.type == "cuda"
            self._opened = (key, _config(self.fields).open(content, self.fields, torch.get_num_threads(), on_cuda))
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        """Without the opened runtime, which is no data: it can neither be copied nor pickled."""
        return {**self.__dict__, "_opened": None}


def _config(fields: Mapping[str, Any]) -> type[ExportedConfig]:
    return cast("type[ExportedConfig]", expert_config_class(fields["family"]))
