"""OpenCV's detection network as a function from pixels to a map of its boxes.

Shapes: B images, H W pixels, C classes, h w sides of the map, N boxes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .... import storage
from ....config import ConfigError
from ....registry import require
from ...exported.arrays import Run, one_at_a_time


def open_network(graph: bytes, description: bytes, fields: Mapping[str, Any]) -> Run:
    """As `ExportedConfig.open`.

    Args:
        graph: TensorFlow's frozen graph.
        description: OpenCV's `.pbtxt` of it.
        fields: The architecture fields.
    """
    cv2 = require("cv2", extra="detector")
    try:
        network = cv2.dnn.readNet("tensorflow", np.frombuffer(graph, np.uint8), np.frombuffer(description, np.uint8))
        if network.empty():
            raise ValueError("no layers")
    except (cv2.error, ValueError, SystemError) as error:
        raise storage.WeightsError(f"OpenCV cannot read it: {_first_line(error)}") from error

    def run(pixels_13HW: np.ndarray) -> np.ndarray:
        try:
            network.setInput(pixels_13HW)
            found = network.forward()
        except cv2.error as error:
            raise ConfigError(
                f"the network refuses `image_size` {fields['image_size']}: {_first_line(error)}"
            ) from error
        if found.ndim != 4 or found.shape[3] != 7:
            raise ConfigError(
                f"the network gives {tuple(found.shape)}; a detector gives (1, 1, N, 7): image, class, score and the "
                "box's left, top, right, bottom in 0..1"
            )
        return draw(found[0, 0], fields["classes"], fields["map_size"], fields["threshold"])[None]

    return one_at_a_time(run)


def draw(boxes_N7: np.ndarray, classes: int, side: int, threshold: float) -> np.ndarray:
    """(C, h, w) float32: at each cell and class the highest score of a box that holds the cell's centre.

    Args:
        boxes_N7: Image, class, score, left, top, right, bottom; sides in 0..1.
        classes: Channels.
        side: Of the map, in cells.
        threshold: Boxes of a lower score are left out.

    Raises:
        ConfigError: A class that is no channel.
    """
    grid_Chw = np.zeros((classes, side, side), np.float32)
    for _, number, score, left, top, right, bottom in boxes_N7[boxes_N7[:, 2] >= threshold]:
        if not 0 <= number < classes:
            raise ConfigError(f"the network found an object of class {number:.0f}; `classes` is {classes}")
        columns, rows = _cells(left, right, side), _cells(top, bottom, side)
        part = grid_Chw[int(number), rows, columns]
        np.maximum(part, score, out=part)
    return grid_Chw


def _cells(low: float, high: float, side: int) -> slice:
    """The cells whose centres lie between two sides of a box."""
    first, last = (int(np.clip(np.ceil(bound * side - 0.5), 0, side)) for bound in (low, high))
    return slice(first, max(first, last))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
