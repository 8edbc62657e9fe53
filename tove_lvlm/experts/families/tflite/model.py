"""Expert of any kind: a network in a TFLite file, run by LiteRT.

See docs/design.md, "Experts".
"""

from collections.abc import Mapping
from typing import Any

from ...base import EXPERTS
from ...exported.model import ExportedNetwork
from .config import TfliteConfig


@EXPERTS.register("tflite")
class TfliteNetwork(ExportedNetwork):
    """A network in a TFLite file: its map, or its features.

    In bfloat16 its pixels alone are rounded: the network computes in the types of its file.

    It runs on the CPU with torch's number of threads, wherever the tower is, and gets the images of a batch one after
    the other, because such a file is exported for one.
    """

    library = TfliteConfig.library.name
    bf16_bound = 0.3  # a map that finds hardly anything has hardly any spread

    @classmethod
    def architecture_of(cls, fields: Mapping[str, Any]) -> str:
        """The output that is read stands for the network, which has no name.

        Args:
            fields: The architecture fields.
        """
        return f"tflite, {fields['result'] or 'first output'}"
