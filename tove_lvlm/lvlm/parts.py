"""The parts of a LLaVA model by their own types, inside peft or not."""

from typing import Any, cast

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
)

FUSION = "vision_tower.tove_fusion"
"""Name of the fusion in LlavaModel."""


def adapter_parts(model: nn.Module) -> dict[str, nn.Module]:
    """What stage 1 trains: the projector and, where the tower has one, `tove_fusion`, by their name in LlavaModel.

    Args:
        model: A LLaVA model, inside peft or not.
    """
    core = base_model(model).model
    parts: dict[str, nn.Module] = {"multi_modal_projector": core.multi_modal_projector}
    fusion = getattr(core.vision_tower, "tove_fusion", None)
    if fusion is not None:
        parts[FUSION] = fusion
    return parts


def base_model(model: nn.Module) -> LlavaForConditionalGeneration:
    """The LLaVA model itself, without peft's wrapper."""
    wrapper: Any = model
    return as_llava(wrapper.get_base_model() if hasattr(model, "get_base_model") else model)


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The language model's layers, from its first to its last.

    Args:
        model: A LLaVA model, inside peft or not.
    """
    language_model: Any = base_model(model).model.language_model
    kinds = language_model._no_split_modules or ()
    return [module for module in language_model.modules() if type(module).__name__ in kinds]


def causal_language_model(llava: LlavaForConditionalGeneration) -> PreTrainedModel:
    """The language model with its output layer as a causal language model of its own, sharing the weights."""
    with torch.device("meta"):
        llm: PreTrainedModel = AutoModelForCausalLM.from_config(text_config(llava.config))
    setattr(llm, llm.base_model_prefix, llava.model.language_model)
    llm.set_output_embeddings(llava.lm_head)
    llm.generation_config = llava.generation_config
    return llm


def vision_part(model: nn.Module) -> nn.Module:
    """The vision tower, of whatever kind, of a LLaVA model or of an encoder with a decoder."""
    whole: Any = base_model(model)
    part: nn.Module = whole.model.vision_tower if hasattr(whole, "model") else whole.encoder
    return part


def as_llava(model: nn.Module) -> LlavaForConditionalGeneration:
    """The same object under its own type; peft's wrapper passes on what is asked of the model in it."""
    return cast("LlavaForConditionalGeneration", model)


def text_config(config: LlavaConfig) -> PreTrainedConfig:
    """The language model's; transformers' annotation also has what it is made from, a dictionary or nothing."""
    return cast("PreTrainedConfig", config.text_config)


def vision_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The vision tower's, in the configuration of a LLaVA model or of an encoder with a decoder."""
    return cast("PreTrainedConfig", config.vision_config if hasattr(config, "vision_config") else config.encoder)
