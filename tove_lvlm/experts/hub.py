"""The hub of frozen experts: one call runs all that are attached. DESIGN.md section 2.

Shapes: B images, C channels of an expert's grid, h w its sides.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from .base import Expert
from .preprocess import Preprocessing, prepare


class ExpertHub(nn.ModuleDict):
    """Attached experts by name, in the tower's order. They are frozen, run without gradient and stay in eval mode.

    Args:
        experts: Name -> expert.
    """

    def __init__(self, experts: Mapping[str, Expert] | Iterable[tuple[str, Expert]] = ()):
        super().__init__(dict(experts))
        self.train(False)

    def train(self, mode: bool = True) -> "ExpertHub":
        """Stays in eval mode whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def forward(
        self, pixels_B3HW: torch.Tensor, given: Preprocessing, dtype: torch.dtype | None = None
    ) -> dict[str, torch.Tensor]:
        """Run every attached expert once.

        Args:
            pixels_B3HW: Normalised as `given` says; prepared once for each distinct size, mean and std.
            given: The tower's own size, mean and std.
            dtype: Dtype of the grids; that of the pixels when it is left out.

        Returns:
            Name -> (B, C, h, w), without gradient.

        Raises:
            ValueError: An expert's grid is not what its spec says.
        """
        prepared: dict[Preprocessing, torch.Tensor] = {}
        grids: dict[str, torch.Tensor] = {}
        for name, expert in self.items():
            wanted = expert.spec.preprocessing
            if wanted not in prepared:
                prepared[wanted] = prepare(pixels_B3HW, given, wanted)
            # ZeRO-3 leaves a partitioned parameter its dtype, so this reads no shape and needs no gather.
            own_dtype = next((p.dtype for p in expert.parameters()), pixels_B3HW.dtype)
            grid_BCHW = expert(prepared[wanted].to(own_dtype))
            if grid_BCHW.ndim != 4 or grid_BCHW.shape[1] != expert.spec.channels:
                raise ValueError(
                    f"expert `{name}` gave a grid of shape {tuple(grid_BCHW.shape)}; its spec says "
                    f"(B, {expert.spec.channels}, h, w)"
                )
            # An expert that computes in float32 inside must not lift the tower's dtype.
            grids[name] = grid_BCHW.to(dtype or pixels_B3HW.dtype)
        return grids
