"""A tower's base and fusion out of its config, without weights."""

from torch import nn
from transformers import CLIPVisionConfig

from ..experts import Expert, build_expert, describe
from .clip import FrozenCLIP
from .concat import ConcatFusion
from .configuration import ToVEVisionConfig
from .fusion import ToVEFusion


def make_base(config: ToVEVisionConfig) -> FrozenCLIP | Expert:
    """The frozen encoder whose tokens are enriched, without weights: a CLIP, or what the config says.

    Args:
        config: Architecture.
    """
    if config.base is not None:
        return build_expert(config.base)
    clip_config = CLIPVisionConfig(**(config.clip_config or {}))
    clip_config._attn_implementation = config._attn_implementation
    return FrozenCLIP(clip_config)


def make_fusion(config: ToVEVisionConfig) -> nn.Module:
    """Gate and transfer, or the concatenation that ToVE is compared with; at its start.

    Args:
        config: Architecture; the base's own width is that of the tokens that come in, `hidden_size` of those that go
            out.
    """
    specs, settings = [describe(entry) for entry in config.experts], config.fusion_settings
    if settings.kind == "concat":
        return ConcatFusion(specs, config.side, settings)
    return ToVEFusion(specs, config.base_width, config.side, settings, config.mean_terms)
