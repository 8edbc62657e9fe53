"""Fields of an expert whose network is a file that another runtime runs, checked without importing torch.

See docs/design.md, "Experts".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ... import storage
from ...config import ConfigError
from ...config.ranges import number
from ..schema import ExpertConfig
from .arrays import INPUT_LAYOUTS, ORDERS, OUTPUT_LAYOUTS, Run, black_image


@dataclass(frozen=True, kw_only=True)
class ExportedConfig(ExpertConfig):
    """What every such expert has; a local file states `file_bytes`, `channels` and `grid` itself."""

    read_off_file: ClassVar[tuple[str, ...]] = ("file_bytes", "channels", "grid")
    file_bytes: int | None = field(default=None, metadata=number(low=1, high=2**40))
    """Size of what a tower keeps of the network: the file's bytes, as they are."""
    channel_order: str = field(default="rgb", metadata={"choices": ORDERS})
    """Order of the colours that the network takes."""

    @classmethod
    def content(cls, file: Path) -> bytes:
        """What a tower keeps of a network's file."""
        return file.read_bytes()

    @classmethod
    def open(cls, content: bytes, fields: Mapping[str, Any], threads: int = 1, on_cuda: bool = False) -> Run:
        """The network, ready to run.

        Args:
            content: What `content` gave.
            fields: The architecture fields, complete.
            threads: Of the runtime.
            on_cuda: Ask the runtime for a GPU, where it has one.

        Raises:
            ConfigError: A field does not fit the network.
            ImportError: The runtime is absent.
            WeightsError: The bytes are truncated or not of this format.
        """
        raise NotImplementedError

    @classmethod
    def stated_by_file(cls, entry: Mapping[str, Any], file: Path) -> dict[str, Any]:
        """Size of the file, and the shape of what the network gives, by a run on a black image.

        Raises:
            As `open`.
        """
        content = cls.content(file)
        try:
            grid_1Chw = cls.open(content, entry)(black_image(entry))
        except ConfigError as error:
            raise ConfigError(f"expert `{entry['name']}`, `{file}`: {error}") from error
        except storage.WeightsError as error:
            raise storage.WeightsError(f"weights `{file}`: {error}") from error
        return {
            "file_bytes": len(content),
            "channels": int(grid_1Chw.shape[1]),
            "grid": [int(side) for side in grid_1Chw.shape[2:]],
        }


@dataclass(frozen=True, kw_only=True)
class GridConfig(ExportedConfig):
    """What a network has that gives its grid as one of its outputs."""

    result: str | None = None
    """Name of the output that is read; the first one when left out."""
    input_layout: str = field(default="nchw", metadata={"choices": INPUT_LAYOUTS})
    output_layout: str = field(default="nchw", metadata={"choices": OUTPUT_LAYOUTS})
    """`tokens`: (B, N, C), class and register tokens first, the others a square grid."""
