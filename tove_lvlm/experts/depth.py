"""Low-level expert: a depth estimator of transformers (DPT, Depth Anything V2). DESIGN.md section 2.

Shapes: B images, C channels of the grid, H W its sides, N tokens, D width.
"""

from collections.abc import Mapping
from typing import Any

import torch

from ..config import ConfigError
from .base import EXPERTS, Expert
from .transformers_backbone import renamed

# The first fusion layer has nothing to add to, so that its first residual unit is never called. Intel's DPT files lack
# it and Depth Anything's hold it; here it does not exist.
_FIRST_UNIT = "neck.fusion_stage.layers.0.residual_layer1"
_NEVER_RUN = (f"{_FIRST_UNIT}.", "dpt.pooler.")


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

        What is never run, and some files hold and some do not, is left out.
        """
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(_NEVER_RUN)}
        if tensors.keys() != self.network.state_dict().keys():
            # transformers renames what is complete for its own network, which has the unit that is never run.
            like = self.network.neck.fusion_stage.layers[1].residual_layer1.state_dict()
            tensors = renamed(self.network, {**tensors, **{f"{_FIRST_UNIT}.{key}": one for key, one in like.items()}})
            tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(_NEVER_RUN)}
        return {f"network.{key}": tensor for key, tensor in tensors.items()}


def _create(fields: Mapping[str, Any]) -> torch.nn.Module:
    from transformers import AutoConfig, AutoModelForDepthEstimation

    known = dict(fields["architecture"])
    kind = known.pop("model_type", None)
    try:
        network = AutoModelForDepthEstimation.from_config(AutoConfig.for_model(kind, **known))
    except ValueError as error:
        raise ConfigError(
            f"expert `{fields['name']}`: transformers has no depth estimator `{kind}` of these sizes; give the config "
            f"of one, such as `model_type: dpt` or `depth_anything` ({str(error).splitlines()[0][:120]})"
        ) from error
    fusion = getattr(getattr(network, "neck", None), "fusion_stage", None)
    if not hasattr(fusion, "layers"):
        raise ConfigError(f"expert `{fields['name']}`: `{kind}` is no depth estimator of the kind of DPT")
    fusion.layers[0].residual_layer1 = None
    return network
