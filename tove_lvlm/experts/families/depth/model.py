"""Low-level expert: a depth estimator of transformers (DPT, Depth Anything V2).

Shapes: B images, C channels of the grid, H W its sides, N tokens, D width.

See docs/design.md, "Experts".
"""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForDepthEstimation

from ....config import ConfigError
from ...base import EXPERTS, Expert
from ...transformers_files import renamed
from .config import DepthConfig

# The first fusion layer has nothing to add to, so that its first residual unit is never called. Intel's DPT files lack
# it and Depth Anything's hold it; here it does not exist.
_FIRST_UNIT = "neck.fusion_stage.layers.0.residual_layer1"
_NEVER_RUN = (f"{_FIRST_UNIT}.", "dpt.pooler.")


@EXPERTS.register("depth")
class DepthEstimator(Expert):
    """Low level: depth by DPT or Depth Anything V2 of transformers; the predicted map, or what its neck gives."""

    kind = "low_level"
    library = DepthConfig.library.name
    bf16_bound = 0.02  # what is computed from differences of its neighbours is far less exact, as normals are

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__(fields)
        self.network = _create(fields)
        if fields["output"] == "features":
            self.network.head = _Pass(self.network.config.head_in_index)
        self.patch_size = getattr(self.network.config, "patch_size", None)
        self.remember_meta_device()

    @classmethod
    def architecture_of(cls, fields: Mapping[str, Any]) -> str:
        return str(fields["architecture"].get("model_type"))

    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """The predicted depth (B, 1, H, W), larger is nearer for the relative estimators; or the neck's finest grid.

        The features are what the head's first layer reads, at half the map's resolution in DPT and at four sevenths
        in Depth Anything; an expert that gives them has no head.
        """
        output_BCHW = self.network(pixels_B3HW).predicted_depth
        return output_BCHW[:, None] if self.spec.output == "map" else output_BCHW

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
        used = self._used(tensors)
        if used.keys() != self.network.state_dict().keys():
            # transformers renames what is complete for its own network, which has the unit that is never run.
            like = self.network.neck.fusion_stage.layers[1].residual_layer1.state_dict()
            unit = {f"{_FIRST_UNIT}.{key}": tensor for key, tensor in like.items()}
            run = {key: tensor for key, tensor in tensors.items() if not key.startswith(_NEVER_RUN)}
            used = self._used(renamed(self.network, {**run, **unit}) or tensors)
        return {f"network.{key}": tensor for key, tensor in used.items()}

    def _used(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        unused = _NEVER_RUN if self.spec.output == "map" else (*_NEVER_RUN, "head.")
        return {key: tensor for key, tensor in tensors.items() if not key.startswith(unused)}


def _create(fields: Mapping[str, Any]) -> Any:
    """The network, a model of transformers; what is touched of it are attributes that only DPT's kind has."""
    architecture = dict(fields["architecture"])
    kind = architecture.pop("model_type", None)
    try:
        network = AutoModelForDepthEstimation.from_config(AutoConfig.for_model(kind, **architecture))
    except ValueError as error:
        raise ConfigError(
            f"expert `{fields['name']}`: transformers has no depth estimator `{kind}` of these sizes; give the config "
            f"of one, such as `model_type: dpt` or `depth_anything` ({str(error).splitlines()[0][:120]})"
        ) from error
    fusion: Any = getattr(getattr(network, "neck", None), "fusion_stage", None)
    if not hasattr(fusion, "layers"):
        raise ConfigError(f"expert `{fields['name']}`: `{kind}` is no depth estimator of the kind of DPT")
    fusion.layers[0].residual_layer1 = None
    return network


class _Pass(torch.nn.Module):
    """In place of a head: gives what the head would read."""

    def __init__(self, index: int):
        super().__init__()
        self.index = index

    def forward(self, grids: list[torch.Tensor], *patches: int) -> torch.Tensor:
        return grids[self.index]
