"""A base encoder that is no CLIP: any expert family that gives a square grid of features.

Shapes: B images, N tokens, D width, S side of the grid.

See docs/design.md, "Base encoder".
"""

from collections.abc import Mapping
from typing import Any

from ..config import ConfigError
from ..experts import describe
from ..experts.schema import parse_expert

NAME = "base"
"""What its fields and messages call it. Its part of a tower is `clip`, whatever it is, so that files stay the same."""


def parse_base(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check a base's architecture fields and complete them, the shape of what it gives included.

    Args:
        entry: `family` and the fields of that family.
        where: File or place named in the message.

    Raises:
        ConfigError: Unknown family or field, a value that does not fit, or no square grid of features.
        ImportError: The family's package is absent.
    """
    fields = parse_expert({**entry, "name": NAME}, where=where)
    spec = describe(fields)
    height, width = spec.grid
    if spec.output != "features":
        raise ConfigError(f"{where}: the base gives a `{spec.output}`; expected `output: features`, which are tokens")
    if height != width:
        raise ConfigError(
            f"{where}: the base gives a grid of {height} x {width}; experts are brought to a square token grid, so "
            "choose an `image_size` and a network that give one"
        )
    return {**fields, "channels": spec.channels, "grid": [height, width]}
