"""Embedding expert: any timm backbone by name, its patch features or one of its stages. DESIGN.md section 2.

Shapes: B images, C feature channels, h w their grid, N tokens.
"""

import difflib
import functools
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..config import ConfigError
from ..registry import nearest, require
from .base import EXPERTS, Expert

HEAD_KEYS = ("head.", "fc.", "classifier.", "head_dist.", "head_drop.", "attn_pool.", "fc_norm.", "pre_logits.")
"""Tensors of a classifier, which a file with whole-model weights may hold and the expert does not use."""


@EXPERTS.register("timm")
class TimmBackbone(Expert):
    """Embedding: a timm backbone by name; class and register tokens are dropped, tokens reshaped to their grid."""

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__(fields)
        self.backbone = _create(fields)
        # What fetches weights (accelerate's offload, ZeRO-3) hooks a module's call, and class token and position table
        # lie in the backbone itself: so it is called, not only its method.
        self.backbone.forward = functools.partial(_features, self.backbone, out_index=fields["out_index"])
        self.note_meta()

    @classmethod
    def channels_of(cls, fields: Mapping[str, Any]) -> int:
        return fields["channels"] if fields["channels"] is not None else _channels(fields)

    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        return self.backbone(pixels_B3HW)

    def adapt_weights(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keys are timm's own; a classifier's are left out, nothing else is.

        Where names or shapes differ, timm's own conversion for the architecture has a go first: it renames what other
        projects have published and resamples position embeddings to another image size.
        """
        own = {key: tensor.shape for key, tensor in self.backbone.state_dict().items()}
        kept = _without_head(tensors, own)
        convert = getattr(sys.modules[type(self.backbone).__module__], "checkpoint_filter_fn", None)
        if convert is not None and {key: tensor.shape for key, tensor in kept.items()} != own:
            kept = _without_head(convert(tensors, self.backbone), own)
        return {f"backbone.{key}": tensor for key, tensor in kept.items()}


def _without_head(tensors: Mapping[str, torch.Tensor], own: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in tensors.items() if key in own or not key.startswith(HEAD_KEYS)}


def _create(fields: Mapping[str, Any]) -> nn.Module:
    """The backbone without a classifier and without weights."""
    timm = require("timm", extra="experts")
    name = fields["architecture"]
    base_name = name.split(".")[0]
    if not timm.is_model(base_name):
        close = difflib.get_close_matches(base_name, timm.list_models(), n=5, cutoff=0.3)  # timm has over a thousand
        raise ConfigError(f"expert `{fields['name']}`: timm has no architecture `{name}`; {nearest(base_name, close)}")
    backbone = timm.create_model(name, pretrained=False, num_classes=0, **fields["model_args"])
    if not hasattr(backbone, "forward_intermediates"):
        raise ConfigError(f"expert `{fields['name']}`: timm's `{name}` gives no feature grid; choose another")
    return backbone


def _features(backbone: nn.Module, pixels_B3HW: torch.Tensor, out_index: int) -> torch.Tensor:
    """(B, C, h, w) for every kind of network; timm drops prefix tokens and applies the final norm itself."""
    indices = 1 if out_index == -1 else [out_index]
    return backbone.forward_intermediates(
        pixels_B3HW, indices=indices, norm=True, output_fmt="NCHW", intermediates_only=True
    )[-1]


def _channels(fields: Mapping[str, Any]) -> int:
    """Width of the chosen features, by a run without weights; timm's own table leaves out a neck (SAM's)."""
    size = fields["image_size"]
    with torch.device("meta"), torch.no_grad():
        backbone = _create(fields).eval()
        try:
            return _features(backbone, torch.zeros(1, 3, size, size), fields["out_index"]).shape[1]
        except (AssertionError, RuntimeError, IndexError) as error:
            raise ConfigError(
                f"expert `{fields['name']}`: timm's `{fields['architecture']}` cannot give features "
                f"{fields['out_index']} for `image_size` {size}: {error}"
            ) from error
