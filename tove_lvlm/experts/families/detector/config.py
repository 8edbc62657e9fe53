"""Fields of the family `detector`, checked without importing torch.

    {name: objects, family: detector, image_size: 300, classes: 91, pretrained: frozen_inference_graph.pb}

A frozen graph of TensorFlow's object detection models (`graph.pb`) and, beside it, the one `.pbtxt` that OpenCV needs
to read it. A saved tower holds the bytes of both.

See docs/design.md, "Experts".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from .... import storage
from ....config.ranges import number
from ...exported.arrays import Run
from ...exported.config import ExportedConfig
from ...schema import EXPERT_CONFIGS, Library

OPENCV = Library(name="OpenCV", module="cv2", extra="detector", license="apache-2.0")
DESCRIPTION = ".pbtxt"


@EXPERT_CONFIGS.register("detector")
@dataclass(frozen=True, kw_only=True)
class DetectorConfig(ExportedConfig):
    """An object detector: for each class a map of the scores of its boxes."""

    library: ClassVar = OPENCV
    output: str = field(default="map", metadata={"choices": ("map",)})
    image_size: int = field(default=300, metadata=number(low=1, high=2**16))
    mean: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0], metadata=number())
    std: list[float] = field(default_factory=lambda: [1 / 255] * 3, metadata=number(above=0))
    """Leaves 0..255, from which the graph goes on itself."""
    classes: int = field(metadata=number(low=1, high=2**16))
    """Class ids that the network counts from 0, background included; COCO's are 91. Each is a channel."""
    map_size: int = field(default=75, metadata=number(low=1, high=2**12))
    """Side of the map."""
    threshold: float = field(default=0.3, metadata=number(low=0, high=1))
    """Boxes of a lower score are left out."""

    @classmethod
    def content(cls, file: Path) -> bytes:
        """The graph, and after it its description and how many bytes that has, in eight of its own.

        Raises:
            WeightsError: There is no description beside the graph, or more than one.
        """
        found = sorted(file.parent.glob(f"*{DESCRIPTION}"))
        if len(found) != 1:
            names = ", ".join(path.name for path in found) or "none"
            raise storage.WeightsError(
                f"weights `{file}`: OpenCV reads the graph with its description, one `{DESCRIPTION}` file in the same "
                f"folder; found {names}"
            )
        description = found[0].read_bytes()
        return file.read_bytes() + description + len(description).to_bytes(8, "little")

    @classmethod
    def open(cls, content: bytes, fields: Mapping[str, Any], threads: int = 1, on_cuda: bool = False) -> Run:
        """As `ExportedConfig.open`; on the CPU whatever is asked."""
        from .network import open_network

        length = int.from_bytes(content[-8:], "little")
        start = len(content) - 8 - length
        return open_network(content[: max(0, start)], content[max(0, start) : -8], fields)
