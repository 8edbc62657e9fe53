"""The model of a training YAML at its real size, without weights, on the meta device: what `tove info` counts."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoConfig, CLIPVisionConfig, CLIPVisionModel, LlavaConfig, LlavaForConditionalGeneration

from ..config import ConfigError
from ..config.model import ModelConfig
from ..config.sources import resolve_source
from ..config.tower import TowerConfig, check_names
from ..tower.build import vision_config
from ..tower.configuration import ToVEVisionConfig
from ..tower.modeling import ToVEVisionModel
from .build import clip_vision, image_token_rows, llava_config, read_tower, tove_vision


def build_unloaded(config: ModelConfig) -> LlavaForConditionalGeneration:
    """The model of a `model` block in bfloat16 on the meta device: no weight is read, nothing is allocated.

    Args:
        config: `llm_architecture` serves where the language model's folder is not at hand.

    Raises:
        ConfigError: The size of a part cannot be found out.
    """
    llava = unloaded_config(config)
    default_dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            # A config may carry the dtype that its weights were saved in; `to` brings all parts to one.
            model = LlavaForConditionalGeneration(llava)
            cast(nn.Module, model).to(torch.bfloat16)  # transformers' own `to` loses `self` for type checkers
            return model
    finally:
        torch.set_default_dtype(default_dtype)


def unloaded_config(config: ModelConfig) -> LlavaConfig:
    """The configuration that the assembled model would have.

    Raises:
        ConfigError: As for `build_unloaded`.
    """
    text_config = _text_config(config)
    image_token_id = text_config.vocab_size
    text_config.vocab_size = image_token_rows(image_token_id, image_token_id + 1)
    tower = None
    if config.tower is not None:
        tower = tower_with_detached(read_tower(config), config.detached, config.require_tower())
    with torch.device("meta"):
        if config.vision_tower == "tove":
            vision = tove_vision(ToVEVisionModel(_required(tower)))
        elif config.vision_tower == "clip" and config.clip is None and _required(tower).base is not None:
            vision = tove_vision(ToVEVisionModel(vision_config(read_tower(config).without_experts)))
        elif config.vision_tower == "clip":
            vision = clip_vision(CLIPVisionModel(_clip_config(config, tower)), None, config.mm_vision_select_layer)
        else:
            raise ConfigError(f"`model.vision_tower` is `{config.vision_tower}`; sizes are read for `tove` and `clip`")
    return llava_config(text_config, vision, image_token_id)


def _required(tower: ToVEVisionConfig | None) -> ToVEVisionConfig:
    if tower is None:
        raise ConfigError("`model.tower` must name the tower's YAML")
    return tower


def _clip_config(config: ModelConfig, tower: ToVEVisionConfig | None) -> CLIPVisionConfig:
    if config.clip is None:
        return CLIPVisionConfig(**(_required(tower).clip_config or {}))
    try:
        return CLIPVisionConfig.from_pretrained(resolve_source(config.clip))
    except OSError as error:
        raise ConfigError(
            f"`model.clip`: the config of `{config.clip}` is not at hand; name a tower YAML in `model.tower` instead"
        ) from error


def _text_config(config: ModelConfig):
    return language_config(config.llm, config.llm_architecture, "llm")


def language_config(source: str, architecture: Mapping[str, Any] | None, key: str) -> Any:
    """The configuration of a language model that need not be at hand.

    Args:
        source: Folder or hub id.
        architecture: Its fields with `model_type`, where they are stated.
        key: Of the `model` block, for the message; `KEY_architecture` states the fields.

    Raises:
        ConfigError: They are not stated, and the configuration is not at hand.
    """
    if architecture is not None:
        fields = dict(architecture)
        return AutoConfig.for_model(fields.pop("model_type", "llama"), **fields)
    try:
        return AutoConfig.from_pretrained(resolve_source(source))
    except OSError as error:
        raise ConfigError(
            f"`model.{key}`: the config of `{source}` is not at hand; state its sizes with `model.{key}_architecture`"
        ) from error


def tower_with_detached(tower: TowerConfig, detached: Sequence[str], where: str) -> ToVEVisionConfig:
    """A tower's architecture with further experts detached.

    Args:
        tower: What its YAML holds.
        detached: Names, besides those that it says itself.
        where: Named in the message.

    Raises:
        ConfigError: It has no expert of such a name.
    """
    config = vision_config(tower)
    check_names(config.expert_names, list(detached), where)
    config.detached = [name for name in config.expert_names if name in {*config.detached, *detached}]
    return config
