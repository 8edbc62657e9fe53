"""Networks of timm, as the families `timm` and `open_clip` run them: features, patch size, weights without a head.

Shapes: B images, C feature channels, h w their grid.
"""

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

HEAD_KEYS = ("head.", "fc.", "classifier.", "head_dist.", "head_drop.", "attn_pool.", "fc_norm.", "pre_logits.")
"""Tensors of a classifier, which a file with whole-model weights may hold and the expert does not use."""
_NORM_IN_HEAD = ("timm.models.hiera", "timm.models.hieradet_sam2")
"""Networks whose final norm belongs to their head: they refuse to be asked for it."""


def adapted_to(backbone: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The backbone's state dict from the tensors of a file.

    Where names or shapes differ, timm's own conversion for the architecture has a go first: it renames what other
    projects have published and resamples position embeddings to another image size.
    """
    shapes = {key: tensor.shape for key, tensor in backbone.state_dict().items()}
    adapted = _without_head(tensors, shapes)
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if convert is not None and {key: tensor.shape for key, tensor in adapted.items()} != shapes:
        adapted = _without_head(convert(dict(tensors), backbone), shapes)
    return adapted


def _without_head(tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in tensors.items() if key in shapes or not key.startswith(HEAD_KEYS)}


def without_pool(backbone: Any) -> Any:
    """A backbone of timm, which has no types, without an attention pool, which only a head uses."""
    if getattr(backbone, "attn_pool", None) is not None:
        backbone.attn_pool = None
    return backbone


def patch_size_of(backbone: nn.Module, image_size: int) -> int | None:
    """Of a network that cuts its image into patches; none for a CNN, or where the size is the network's own.

    SigLIP's 384 is no multiple of 14: the network was trained so, and leaves the last pixels out.
    """
    input_size = (getattr(backbone, "default_cfg", None) or {}).get("input_size")
    if input_size is not None and input_size[-1] == image_size:
        return None
    patch_embed = getattr(backbone, "patch_embed", None)
    # One with a `grid_size` cuts; the others (PVT's) are convolutions that overlap.
    patch = getattr(patch_embed, "patch_size", None) if hasattr(patch_embed, "grid_size") else None
    return max(patch) if isinstance(patch, tuple | list) else patch


def timm_features(backbone: Any, pixels_B3HW: torch.Tensor, out_index: int) -> torch.Tensor:
    """(B, C, h, w) for every kind of network; timm drops prefix tokens and applies the final norm itself."""
    return backbone.forward_intermediates(
        pixels_B3HW,
        indices=1 if out_index == -1 else [out_index],
        norm=type(backbone).__module__ not in _NORM_IN_HEAD,
        output_fmt="NCHW",
        intermediates_only=True,
        stop_early=True,
    )[-1]
