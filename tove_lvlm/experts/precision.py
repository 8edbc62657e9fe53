"""How far an expert that runs in bfloat16 is from itself in float32.

    of_spread = rms(grid - reference) / rms(reference - its channel's mean over the image)
    relative  = rms(grid - reference) / rms(reference)
    largest   = max |grid - reference| / rms(reference)

The first is what counts, and has a bound (`Expert.bf16_bound`): what an expert tells of an image is where its grid is
high and where it is low. A depth map of 100 +- 1 whose values are off by 1 has lost everything, and 1 % of its values.
It says nothing of random weights, whose maps are nearly flat.

Shapes: B images, C channels of the grid, h w its sides.

See docs/design.md, "Speed of the experts".
"""

import copy
from typing import NamedTuple

import torch

from .base import Expert


class Deviation(NamedTuple):
    """Of a batch of grids from their reference; see the module's docstring."""

    of_spread: float
    relative: float
    largest: float


@torch.no_grad()
def deviation(grid_BChw: torch.Tensor, reference_BChw: torch.Tensor) -> Deviation:
    """See the module's docstring; 0 where both are equal, infinite where the grid holds NaN or infinity.

    Args:
        grid_BChw: Any dtype.
        reference_BChw: What it should be.
    """
    reference = reference_BChw.double()
    difference = grid_BChw.double() - reference
    if not bool(difference.isfinite().all()):
        return Deviation(float("inf"), float("inf"), float("inf"))
    if not bool(difference.any()):
        return Deviation(0.0, 0.0, 0.0)
    spread = reference - reference.mean((2, 3), keepdim=True)
    error = _rms(difference)
    return Deviation(
        (error / _rms(spread)).item(),
        (error / _rms(reference)).item(),
        (difference.abs().max() / _rms(reference)).item(),
    )


def _rms(x: torch.Tensor) -> torch.Tensor:
    return x.square().mean().sqrt()


@torch.no_grad()
def deviation_in(expert: Expert, pixels_B3HW: torch.Tensor, dtype: torch.dtype = torch.bfloat16) -> Deviation:
    """Of what an expert gives when weights and pixels are of a dtype, from what it gives in float32.

    Args:
        expert: With its weights, in float32 or the nearest there is; it is copied and stays as it is.
        pixels_B3HW: As `expert.spec.preprocessing` says, float32.
        dtype: To try.
    """
    exact = copy.deepcopy(expert).float()
    reference_BChw = exact(pixels_B3HW.float())
    return deviation(exact.to(dtype)(pixels_B3HW.to(dtype)), reference_BChw)
