"""The cells of a gate panel one by one, as PNG files in memory: what a page shows of an expert.

Shapes: Y X rows and columns of the token grid, H W pixels.
"""

import base64
import io
from collections.abc import Callable

from .gates import TokenGates
from .gates_plot import Scale, show_heat, show_picture
from .style import new_figure

CELL_PIXELS = 448
"""Side of a cell's picture."""
_DPI = 100


def cell_images(gates: TokenGates, scale: Scale) -> dict[str, dict[str, str]]:
    """Each attached expert's pictures, as addresses that hold their content (`data:image/png;base64,...`).

    Args:
        gates: One picture's.
        scale: From `common_scale`.

    Returns:
        Expert -> `map` (what it sees), `gate` and `strength` (over the picture).
    """
    cells = {}
    for index, name in enumerate(gates.names):
        if name in gates.maps:
            cells[name] = {
                "map": picture_address(gates.maps[name]),
                "gate": _draw(lambda axes, k=index: show_heat(axes, gates, gates.gate_KYX[k], scale.gate)),
                "strength": _draw(lambda axes, k=index: show_heat(axes, gates, gates.strength_KYX[k], scale.strength)),
            }
    return cells


def picture_address(picture_HW3) -> str:
    """A picture, drawn as on a panel.

    Args:
        picture_HW3: uint8.
    """
    return _draw(lambda axes: show_picture(axes, picture_HW3))


def _draw(draw: Callable) -> str:
    figure = new_figure(CELL_PIXELS / _DPI, CELL_PIXELS / _DPI)
    figure.set_layout_engine("none")
    draw(figure.add_axes((0.0, 0.0, 1.0, 1.0)))
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
