"""Arrays to and from another runtime: layouts, types, one image at a time where a network takes no more.

Shapes: B images, H W pixels, C channels, h w sides of the grid, N tokens.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from ...config import ConfigError

ORDERS = ("rgb", "bgr")
INPUT_LAYOUTS = ("nchw", "nhwc")
OUTPUT_LAYOUTS = ("nchw", "nhwc", "tokens")
Run: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""(B, 3, H, W) float32, normalised, in the network's order of colours, to (B, C, h, w) float32."""


def black_image(fields: Mapping[str, Any]) -> np.ndarray:
    """(1, 3, H, W) float32: the normalised pixels of one black image."""
    size = fields["image_size"]
    colour_3 = -np.array(fields["mean"], np.float32) / np.array(fields["std"], np.float32)
    return np.broadcast_to(colour_3[None, :, None, None], (1, 3, size, size)).copy()


def to_input(pixels_B3HW: np.ndarray, layout: str, dtype: np.dtype) -> np.ndarray:
    """Pixels as a network takes them.

    Args:
        pixels_B3HW: float32.
        layout: One of `INPUT_LAYOUTS`.
        dtype: Of the network's input; whole numbers are rounded and kept within the type's bounds.
    """
    pixels = pixels_B3HW if layout == "nchw" else pixels_B3HW.transpose(0, 2, 3, 1)
    if np.issubdtype(dtype, np.integer):
        bounds = np.iinfo(dtype)
        pixels = np.rint(pixels).clip(bounds.min, bounds.max)
    return np.ascontiguousarray(pixels, dtype=dtype)


def to_grid(result: np.ndarray, layout: str, name: str) -> np.ndarray:
    """(B, C, h, w) float32 of what a network gave.

    Args:
        result: (B, C, h, w), (B, h, w, C), or (B, N, C) of tokens: class and register tokens come first, the others
            are a square.
        layout: One of `OUTPUT_LAYOUTS`.
        name: Of the output, for the message.

    Raises:
        ConfigError: It has another number of dimensions.
    """
    expected = 3 if layout == "tokens" else 4
    if result.ndim != expected:
        raise ConfigError(
            f"the output `{name}` has the shape {tuple(result.shape)}, but `output_layout: {layout}` is of "
            f"{expected} dimensions; `result` chooses another output, `output_layout` is one of "
            f"{', '.join(OUTPUT_LAYOUTS)}"
        )
    grid = result.astype(np.float32)
    if layout == "nhwc":
        grid = grid.transpose(0, 3, 1, 2)
    elif layout == "tokens":
        side = math.isqrt(grid.shape[1])
        grid = grid[:, grid.shape[1] - side * side :].transpose(0, 2, 1).reshape(len(grid), -1, side, side)
    return np.ascontiguousarray(grid)


def one_at_a_time(run: Run) -> Run:
    """Of a network that takes one image."""
    return lambda pixels_B3HW: np.concatenate([run(pixels_B3HW[k : k + 1]) for k in range(len(pixels_B3HW))])


def check_result(name: str | None, names: list[str]) -> int:
    """Index of the output that `result` names; the first one when it names none.

    Raises:
        ConfigError: There is none of that name.
    """
    if name is None:
        return 0
    if name not in names:
        raise ConfigError(f"`result` is `{name}`; the network's outputs are {', '.join(names)}")
    return names.index(name)
