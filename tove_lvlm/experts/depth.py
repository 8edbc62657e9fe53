"""Low-level expert: a depth estimator of transformers (DPT, Depth Anything V2). DESIGN.md section 2.

Shapes: B images, C channels of the grid, H W its sides, N tokens, D width.
"""

from collections.abc import Mapping
from typing import Any

import torch

from ..config import ConfigError
from .base import EXPERTS, Expert
from .transformers_backbone import renamed


@EXPERTS.register("depth")
class DepthEstimator(Expert):
    """Low level: depth by DPT or Depth Anything V2 of transformers; the predicted map, or what its neck gives."""

    kind = "low_level"
    library = "transformers"

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__(fields)
        self.network = _create(fields)
        self.patch_size = getattr(self.network.config, "patch_size", None)
        self.note_meta()

    @classmethod
    def architecture_of(cls, fields: Mapping[str, Any]) -> str:
        return str(fields["architecture"].get("model_type"))

    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """The predicted depth (B, 1, H, W), larger is nearer for the relative estimators; or the neck's finest grid.

        The features are what the head's first layer reads, at half the map's resolution in DPT and at four sevenths
        in Depth Anything; the head itself is not run to its end for them.
        """
        if self.spec.output == "map":
            return self.network(pixels_B3HW).predicted_depth[:, None]
        return self._neck_features(pixels_B3HW)

    def _neck_features(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w): the head is given the neck's grids; a hook takes the one that it would use."""
        taken: list[torch.Tensor] = []
        index = self.network.config.head_in_index

        def take(neck: torch.nn.Module, given: tuple, grids: list[torch.Tensor]) -> None:
            taken.append(grids[index])

        handle = self.network.neck.register_forward_hook(take)
        try:
            self.network(pixels_B3HW)
        finally:
            handle.remove()
        return taken[0]

    def use_attention(self, implementation: str | None) -> None:
        """As `Expert.use_attention`, by transformers' own switch, of the parts that have attention."""
        if implementation is not None:
            parts = {"": self.network, "backbone_config": getattr(self.network, "backbone", None)}
            can = [key for key, part in parts.items() if part is not None and part._supports_sdpa]
            self.network.set_attn_implementation(dict.fromkeys(can, implementation))

    def adapt_weights(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keys are those of transformers' `...ForDepthEstimation`; what earlier versions of it named is renamed by it.

        A pooler, which the estimator has no use for and some files hold, is left out.
        """
        own = self.network.state_dict()
        tensors = {key: tensor for key, tensor in tensors.items() if ".pooler." not in key or key in own}
        if tensors.keys() != own.keys():
            tensors = renamed(self.network, tensors)
        return {f"network.{key}": tensor for key, tensor in tensors.items()}


def _create(fields: Mapping[str, Any]) -> torch.nn.Module:
    from transformers import AutoConfig, AutoModelForDepthEstimation

    known = dict(fields["architecture"])
    kind = known.pop("model_type", None)
    try:
        return AutoModelForDepthEstimation.from_config(AutoConfig.for_model(kind, **known))
    except ValueError as error:
        raise ConfigError(
            f"expert `{fields['name']}`: transformers has no depth estimator `{kind}` of these sizes; give the config "
            f"of one, such as `model_type: dpt` or `depth_anything` ({str(error).splitlines()[0][:120]})"
        ) from error
