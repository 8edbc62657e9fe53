"""The cells of a gate panel one by one, as PNG files in memory: what a page shows of an expert."""

import base64
import io

import numpy as np
from PIL import Image

from .gates import TokenGates
from .gates_plot import Scale, heat_picture


def cell_images(gates: TokenGates, scale: Scale) -> dict[str, dict[str, str]]:
    """Each attached expert's pictures, as addresses that hold their content (`data:image/png;base64,...`).

    Args:
        gates: One picture's.
        scale: From `common_scale`.

    Returns:
        Expert -> `map` (what it sees), `gate` and `strength` (over the picture).
    """
    return {
        name: {
            "map": picture_address(gates.maps[name]),
            "gate": picture_address(heat_picture(gates, gates.gate_KYX[index], scale.gate)),
            "strength": picture_address(heat_picture(gates, gates.strength_KYX[index], scale.strength)),
        }
        for index, name in enumerate(gates.names)
        if name in gates.maps
    }


def picture_address(picture_HW3: np.ndarray) -> str:
    """A picture as an address that holds it.

    Args:
        picture_HW3: uint8.
    """
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture_HW3)).save(stream, format="png")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
