"""Embedding expert: a vision encoder of transformers (CLIP, DINOv2, SigLIP, ViT, SAM, ...). DESIGN.md section 2.

Shapes: B images, N tokens, D width, C channels of the grid, h w its sides.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..config import ConfigError
from .base import EXPERTS, Expert


@EXPERTS.register("transformers")
class TransformersBackbone(Expert):
    """Embedding: a vision encoder of transformers; class and register tokens are dropped."""

    library = "transformers"

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__(fields)
        self.backbone = _create(fields)
        self.patch_size = getattr(self.backbone.config, "patch_size", None)
        self.note_meta()

    @classmethod
    def architecture_of(cls, fields: Mapping[str, Any]) -> str:
        return str(fields["architecture"].get("model_type"))

    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        return _features(self.backbone, pixels_B3HW, self.fields["layer"])

    def use_attention(self, implementation: str | None) -> None:
        """As `Expert.use_attention`, by transformers' own switch."""
        if implementation is not None:
            self.backbone.set_attn_implementation(implementation)

    def adapt_weights(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keys bare or under the encoder's name in a larger model, whose other parts are left out.

        A tensor under that name which the encoder does not know is not left out: it is reported. transformers itself
        renames what earlier versions of it have saved.
        """
        own = self.backbone.state_dict()
        tensors = {key: tensor for key, tensor in tensors.items() if not key.endswith("position_ids")}
        first = next(iter(own))
        prefixes = {key.removesuffix(first) for key in tensors if key.endswith(first)}
        prefix = "" if "" in prefixes or not prefixes else min(prefixes, key=lambda found: ("text" in found, found))
        tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        if tensors.keys() != own.keys():
            tensors = renamed(self.backbone, tensors)
        return {f"backbone.{key}": tensor for key, tensor in tensors.items()}


def renamed(backbone: nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under today's names, as transformers loads them; as they were where it does not know them all.

    Args:
        backbone: A model of transformers.
        tensors: Its state dict, as this or an earlier version of transformers has saved it.
    """
    loaded, report = type(backbone).from_pretrained(
        None, config=backbone.config, state_dict=dict(tensors), output_loading_info=True
    )
    complete = not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return dict(loaded.state_dict()) if complete else tensors


def _create(fields: Mapping[str, Any]) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    known = dict(fields["architecture"])
    kind = known.pop("model_type", None)
    try:
        config = AutoConfig.for_model(kind, **known)
    except ValueError as error:
        raise ConfigError(
            f"expert `{fields['name']}`: transformers has no model type `{kind}`; give the `model_type` of a vision "
            "encoder, such as clip_vision_model, dinov2, siglip_vision_model or sam_vision_model"
        ) from error
    return AutoModel.from_config(config)


def _features(backbone: nn.Module, pixels_B3HW: torch.Tensor, layer: int | None) -> torch.Tensor:
    """(B, C, h, w) of the last hidden state, or of hidden state `layer`."""
    output = backbone(pixels_B3HW, output_hidden_states=layer is not None)
    states = output.last_hidden_state if layer is None else output.hidden_states[layer]
    if states.ndim == 4:  # SAM gives its grid itself
        return states
    patch = backbone.config.patch_size
    height, width = (side // patch for side in pixels_B3HW.shape[-2:])
    tokens_BND = states[:, states.shape[1] - height * width :]  # what comes first is class and register tokens
    return tokens_BND.transpose(1, 2).unflatten(2, (height, width))
