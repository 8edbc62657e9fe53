"""Expert of any kind: a network in an ONNX file, run by onnxruntime.

See docs/design.md, "Experts".
"""

from collections.abc import Mapping
from typing import Any

from ...base import EXPERTS
from ...exported.model import ExportedNetwork
from .config import OnnxConfig


@EXPERTS.register("onnx")
class OnnxNetwork(ExportedNetwork):
    """A network in an ONNX file: its map, or its features.

    In bfloat16 its pixels alone are rounded: the network computes in the types of its file.

    It runs on the CPU with torch's number of threads, or on a GPU where the tower is on one and onnxruntime's GPU build
    is installed. A file that was exported for one image gets the images of a batch one after the other.
    """

    library = OnnxConfig.library.name

    @classmethod
    def architecture_of(cls, fields: Mapping[str, Any]) -> str:
        """The output that is read stands for the network, which has no name.

        Args:
            fields: The architecture fields.
        """
        return f"onnx, {fields['result'] or 'first output'}"
