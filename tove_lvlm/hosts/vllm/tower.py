"""The tower as vLLM's LLaVA calls it.

Shapes: B images, N visual tokens, D width, H W pixels.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch

from ...storage import load_strict
from ...tower.modeling import ToVEVisionModel
from ...tower.output import ToVEOutput


class ServedTower(ToVEVisionModel):
    """The class that is trained, with vLLM's calls."""

    def forward(  # type: ignore[override]  # vLLM's own parameters
        self, pixel_values: torch.Tensor, feature_select_strategy: str | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """(B, N, D) t_fuse of (B, 3, H, W) pixels; there is no class token to select from."""
        output = cast(ToVEOutput, super().forward(pixel_values.to(self.dtype)))
        return cast(torch.Tensor, output.last_hidden_state)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Take all of the tower's weights, by the names that `save_pretrained` gives them.

        Args:
            weights: Those of detached experts may be among them.

        Returns:
            The names that were taken.

        Raises:
            WeightsError: One is missing, left over or of another shape.
        """
        gone = tuple(f"experts.{name}." for name in self.config.detached)
        state = {name: tensor for name, tensor in weights if not name.startswith(gone)}
        load_strict(self, state, where="the model's vision tower")
        self._restore_frozen()
        return set(state)
