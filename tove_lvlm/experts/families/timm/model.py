"""Embedding expert: any timm backbone by name, its patch features or one of its stages.

Shapes: B images, C feature channels, h w their grid, N tokens.

See docs/design.md, "Experts".
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ....config import ConfigError
from ....registry import nearest, require
from ...base import EXPERTS, Expert
from ...timm_networks import adapted_to, patch_size_of, timm_features, without_pool
from .config import TimmConfig


@EXPERTS.register("timm")
class TimmBackbone(Expert):
    """Embedding: a timm backbone by name; class and register tokens are dropped, tokens reshaped to their grid."""

    library = TimmConfig.library.name

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__(fields)
        self.backbone = _create(fields)
        self.patch_size = patch_size_of(self.backbone, fields["image_size"])
        # What fetches weights (accelerate's offload, ZeRO-3) hooks a module's call, and class token and position table
        # lie in the backbone itself: so it is called, not only its method.
        self.backbone.forward = functools.partial(timm_features, self.backbone, out_index=fields["out_index"])
        self.remember_meta_device()

    @classmethod
    def entry_of(cls, architecture: str) -> dict[str, Any]:
        cfg = _pretrained_cfg(architecture, "")
        if cfg is None or not cfg.hf_hub_id:
            raise ConfigError(
                f"timm has no weights of `{architecture}` on the hub; write `family: timm` and `pretrained`"
            )
        base = architecture.partition(".")[0]
        return {
            "architecture": f"{base}.{cfg.tag}" if cfg.tag else base,
            "image_size": cfg.input_size[-1],
            "mean": list(cfg.mean),
            "std": list(cfg.std),
            "pretrained": cfg.hf_hub_id,
            "license": cfg.license,
        }

    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        return self.backbone(pixels_B3HW)

    def adapt_weights(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keys are timm's own; a classifier's are left out, nothing else is."""
        return {f"backbone.{key}": tensor for key, tensor in adapted_to(self.backbone, tensors).items()}


def _create(fields: Mapping[str, Any]) -> nn.Module:
    """The backbone without a classifier and without weights."""
    timm = require("timm", extra="experts")
    name, args = fields["architecture"], dict(fields["model_args"])
    cfg = _pretrained_cfg(name, f"expert `{fields['name']}`: ")
    if cfg is not None and cfg.fixed_input_size and fields["image_size"] != cfg.input_size[-1]:
        with torch.device("meta"):
            positions = getattr(timm.create_model(name, pretrained=False, num_classes=0, **args), "pos_embed", None)
        # SAM's, kept as a grid (1, h, w, D), fit every image: it resamples them itself.
        if getattr(positions, "ndim", 0) != 4:
            args.setdefault("img_size", fields["image_size"])
    backbone = timm.create_model(name, pretrained=False, num_classes=0, **args)
    if not hasattr(backbone, "forward_intermediates"):
        raise ConfigError(f"expert `{fields['name']}`: timm's `{name}` gives no feature grid; choose another")
    return without_pool(backbone)


def _pretrained_cfg(name: str, where: str) -> Any | None:
    """timm's own description of an architecture's weights: input, normalisation, hub id, licence."""
    timm = require("timm", extra="experts")
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise ConfigError(f"{where}timm has no architecture `{name}`; {nearest(base, timm.list_models())}")
    tags = [model.partition(".")[2] for model in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        raise ConfigError(f"{where}timm's `{base}` has no weights `{tag}`; {nearest(tag, tags)}")
    return timm.get_pretrained_cfg(name)
