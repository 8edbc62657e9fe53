"""Embedding expert: the visual trunk of any open_clip model, by name (EVA02-CLIP, SigLIP, ...).

The text tower is neither built nor loaded, nor is what only makes one vector of the image (pooling, projection).

Shapes: B images, C feature channels, h w their grid, N tokens.

See docs/design.md, "Experts".
"""

import functools
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ....config import ConfigError
from ....registry import nearest, require
from ...base import EXPERTS, Expert
from ...timm_networks import adapted_to, patch_size_of, timm_features, without_pool
from .config import OpenCLIPConfig

_VISUAL, _TRUNK = "visual.", "visual.trunk."
_HEAD_KEYS = ("visual.proj", "visual.head.", "visual.attn_pool", "visual.attnpool.")
"""What makes one vector of the image: in the files, and not used."""

WEIGHT_FILES = "open_clip_*"
"""Of a repository: timm's and transformers' weights of the same model may lie beside them."""


@EXPERTS.register("open_clip")
class OpenCLIPBackbone(Expert):
    """Embedding: an open_clip model's visual trunk; class tokens are dropped, tokens reshaped to their grid.

    Features are those that open_clip normalises for its pooling. A trunk that normalises after pooling (CLIPA) or pools
    by attention first (CoCa) gives its last block's.
    """

    library = OpenCLIPConfig.library.name

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__(fields)
        visual, self._is_timm = _create(fields)
        self.backbone: nn.Module = visual
        features = timm_features if self._is_timm else _features
        if self._is_timm:
            self.patch_size = patch_size_of(visual, fields["image_size"])
        else:
            self.patch_size = max(visual.patch_size) if hasattr(visual, "patch_size") else None
        # Called as a module, as in the timm family: what fetches weights hooks the call.
        self.backbone.forward = functools.partial(features, self.backbone, out_index=fields["out_index"])
        self.remember_meta_device()

    @classmethod
    def architecture_of(cls, fields: Mapping[str, Any]) -> str:
        architecture = fields["architecture"]
        return architecture if isinstance(architecture, str) else "model_cfg"

    @classmethod
    def entry_of(cls, architecture: str) -> dict[str, Any]:
        pretrained = require("open_clip.pretrained", extra="experts")
        name, _, tag = architecture.partition("/")
        config = _model_config(name, "")
        tags = pretrained.list_pretrained_tags_by_model(name)
        if tag not in tags:
            problem = f"has no weights `{tag}`" if tag else f"needs the tag of its weights: `open_clip/{name}/TAG`"
            raise ConfigError(f"open_clip's `{name}` {problem}; {nearest(tag, tags)}")
        pretrained_cfg = pretrained.get_pretrained_cfg(name, tag)
        if not pretrained_cfg.get("hf_hub"):
            raise ConfigError(
                f"open_clip has no weights of `{architecture}` on the hub; write `family: open_clip` and `pretrained`"
            )
        hub, _, file = pretrained_cfg["hf_hub"].rpartition("/")
        size = config["vision_cfg"]["image_size"]
        entry = {
            "architecture": name,
            "image_size": size if isinstance(size, int) else max(size),
            "mean": list(pretrained_cfg["mean"]),
            "std": list(pretrained_cfg["std"]),
            "pretrained": hub,
        }
        if pretrained_cfg.get("quick_gelu", False) != config.get("quick_gelu", False):
            entry["quick_gelu"] = pretrained_cfg.get("quick_gelu", False)
        return {**entry, "file": file or WEIGHT_FILES}

    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        return self.backbone(pixels_B3HW)

    def adapt_weights(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """From a whole model's tensors those under `visual.`, and of these all but the ones of its head.

        Positions are resampled to another image size as open_clip does when it loads: bicubic, antialiased.
        """
        visual = {key: tensor for key, tensor in tensors.items() if key.startswith(_VISUAL)} or tensors
        state = self.backbone.state_dict()
        prefix = _TRUNK if self._is_timm else _VISUAL
        adapted = {
            key.removeprefix(prefix): tensor
            for key, tensor in visual.items()
            if key.removeprefix(prefix) in state or not key.startswith(_HEAD_KEYS)
        }
        if self._is_timm:
            adapted = adapted_to(self.backbone, adapted)
        else:
            if "ln_post.weight" not in state:
                adapted = {key: tensor for key, tensor in adapted.items() if not key.startswith("ln_post.")}
            adapted = _with_positions(self.backbone, adapted)
        return {f"backbone.{key}": tensor for key, tensor in adapted.items()}


def _model_config(architecture: str | Mapping[str, Any], where: str) -> dict[str, Any]:
    """open_clip's own configuration of a model: `embed_dim`, `vision_cfg`, `text_cfg`, and sometimes `quick_gelu`."""
    open_clip = require("open_clip", extra="experts")
    if isinstance(architecture, Mapping):
        if not isinstance(architecture.get("vision_cfg"), Mapping) or "embed_dim" not in architecture:
            raise ConfigError(
                f"{where}`architecture` is a block without `embed_dim` and `vision_cfg`; expected open_clip's name of "
                "a model or the `model_cfg` of an open_clip_config.json"
            )
        return json.loads(json.dumps(architecture))
    if architecture not in open_clip.list_models():
        raise ConfigError(
            f"{where}open_clip has no model `{architecture}`; {nearest(architecture, open_clip.list_models())}"
        )
    return open_clip.get_model_config(architecture)


def _create(fields: Mapping[str, Any]) -> tuple[Any, bool]:
    """The trunk without its head, without weights, for the image size asked for; and whether it is timm's.

    open_clip builds a visual tower alone only in a function it keeps to itself; its public ones build the text too.
    """
    config = _model_config(fields["architecture"], f"expert `{fields['name']}`: ")
    build = require("open_clip.model", extra="experts")._build_vision_tower
    vision = {**config["vision_cfg"], "image_size": fields["image_size"], **fields["model_args"]}
    vision["timm_model_pretrained"] = False
    vision["patch_dropout"] = 0.0
    quick = fields["quick_gelu"] if fields["quick_gelu"] is not None else config.get("quick_gelu", False)
    try:
        visual = build(config["embed_dim"], vision, quick)
    except TypeError as error:
        raise ConfigError(f"expert `{fields['name']}`: open_clip's visual tower: {error}") from error
    if vision.get("timm_model_name"):
        trunk = without_pool(visual.trunk)
        trunk.reset_classifier(0)
        native_size = (trunk.default_cfg.get("input_size") or (3, None, None))[-1]
        if fields["image_size"] != native_size and hasattr(trunk, "set_input_size"):
            trunk.set_input_size(fields["image_size"])
        return trunk, True
    if hasattr(visual, "attnpool"):
        visual.attnpool = None
    else:
        visual.final_ln_after_pool = visual.final_ln_after_pool or visual.attn_pool is not None
        visual.attn_pool = visual.proj = None
        if visual.final_ln_after_pool:
            visual.ln_post = nn.Identity()
    return visual, False


def _with_positions(visual: nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Positions for the trunk's own grid, by open_clip's function for it."""
    if "positional_embedding" not in tensors:
        return tensors
    resize = require("open_clip.model", extra="experts").resize_pos_embed
    holder = nn.Module()
    holder.visual = visual
    state = {f"{_VISUAL}positional_embedding": tensors["positional_embedding"]}
    resize(state, holder)
    return {**tensors, "positional_embedding": state[f"{_VISUAL}positional_embedding"]}


def _features(visual: Any, pixels_B3HW: torch.Tensor, out_index: int) -> torch.Tensor:
    """(B, C, h, w) of a ViT or ModifiedResNet of open_clip's own; it drops the class token itself."""
    intermediates = visual.forward_intermediates(
        pixels_B3HW,
        indices=1 if out_index == -1 else [out_index],
        normalize_intermediates=True,
        intermediates_only=True,
        stop_early=True,
    )
    return intermediates["image_intermediates"][-1]
