"""The token grid: what the page's script draws of one picture, as JSON, and the script, markup and style themselves."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from ..viz.embedding import picture_address
from ..viz.gates import TokenGates, as_json
from ..viz.gates_plot import Scale, common_scale, heat_picture
from ..viz.palette import expert_colors
from .requests import Seen

STATIC = Path(__file__).parent / "static"


@cache
def static(name: str) -> str:
    """Text of a file that the page is made of."""
    return (STATIC / name).read_text(encoding="utf-8")


def gate_json(seen: Seen, picture_name: str) -> str:
    """What `gate.js` draws.

    Args:
        seen: What a tower made of a picture.
        picture_name: For people.

    Returns:
        JSON: `why` alone where there is no gate; else `picture`, `side`, `experts` (name, color, attached and means),
        `tokens` (`gate` and `strength`: expert -> rows of the grid) and `cells` (`cell_images`).
    """
    if seen.gates is None:
        return json.dumps({"why": seen.why})
    gates = seen.gates
    figures = as_json([picture_name], [gates])["images"][0]
    colors = expert_colors(gates.names)
    experts: list[dict[str, Any]] = [
        {
            "name": name,
            "color": colors[name],
            "attached": name in gates.maps,
            "is_features": name in gates.features,
            "gate_mass": figures["gate_mass"][name],
            "strength": figures["strength"][name],
        }
        for name in gates.names
    ]
    return json.dumps(
        {
            "name": picture_name,
            "picture": picture_address(gates.picture_HW3),
            "side": gates.gate_KYX.shape[-1],
            "experts": experts,
            "tokens": {kind: figures["tokens"][kind] for kind in ("gate", "strength")},
            "cells": cell_images(gates, common_scale([gates])),
        }
    )


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
