"""The model of a training YAML at its real size and without its weights: on the meta device, or with random ones.

What `tove info` counts and `benchmarks/train_step.py` times.
"""

from typing import cast

import torch
from torch import nn
from transformers import AutoConfig, CLIPVisionConfig, CLIPVisionModel, LlavaConfig, LlavaForConditionalGeneration

from ..config import ConfigError
from ..config.model import ModelConfig
from ..config.sources import resolve_source
from ..config.tower import check_names
from ..tower.build import vision_config
from ..tower.configuration import ToVEVisionConfig
from ..tower.modeling import ToVEVisionModel
from .build import clip_vision, image_token_rows, llava_config, read_tower, tove_vision


def build_unloaded(
    config: ModelConfig, device: str = "meta", dtype: torch.dtype = torch.bfloat16
) -> LlavaForConditionalGeneration:
    """The model of a `model` block, no weight read.

    Args:
        config: `llm_architecture` serves where the language model's folder is not at hand.
        device: `meta` allocates nothing; on any other the weights are random.
        dtype: Of the weights.

    Raises:
        ConfigError: The size of a part cannot be found out.
    """
    llava = unloaded_config(config)
    default_dtype = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            # A config may carry the dtype that its weights were saved in; `to` brings all parts to one.
            model = LlavaForConditionalGeneration(llava)
            cast(nn.Module, model).to(dtype)  # transformers' own `to` loses `self` for type checkers
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
    tower = vision_config(read_tower(config)) if config.tower is not None else None
    if tower is not None and config.detached:
        check_names(tower.expert_names, config.detached, config.require_tower())
        tower.detached = [name for name in tower.expert_names if name in {*tower.detached, *config.detached}]
    with torch.device("meta"):
        if config.vision_tower == "tove":
            vision = tove_vision(ToVEVisionModel(_required(tower)))
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
        return CLIPVisionConfig(**_required(tower).clip_config)
    try:
        return CLIPVisionConfig.from_pretrained(resolve_source(config.clip))
    except OSError as error:
        raise ConfigError(
            f"`model.clip`: the config of `{config.clip}` is not at hand; name a tower YAML in `model.tower` instead"
        ) from error


def _text_config(config: ModelConfig):
    if config.llm_architecture is not None:
        architecture = dict(config.llm_architecture)
        return AutoConfig.for_model(architecture.pop("model_type", "llama"), **architecture)
    try:
        return AutoConfig.from_pretrained(resolve_source(config.llm))
    except OSError as error:
        raise ConfigError(
            f"`model.llm`: the config of `{config.llm}` is not at hand; state its sizes with `model.llm_architecture`"
        ) from error
