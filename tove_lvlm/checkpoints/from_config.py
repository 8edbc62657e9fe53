"""The model that a `model` block describes, out of the folders that it names."""

import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from ..config import ConfigError
from ..config.model import ModelConfig
from ..config.tower import check_names
from ..lvlm.build import append_image_token, assemble, load_tokenizer, load_vision, make_processor
from ..lvlm.language_model import load_language_model
from ..lvlm.processor import set_chat_template
from ..lvlm.quantization import WHOLE, mark_quantized
from .projector import load_projector
from .whole import load_whole


def build_lvlm(
    config: ModelConfig, dtype: torch.dtype = torch.float32, bits: int = WHOLE
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The model with everything frozen, and its processor.

    Args:
        config: The `model` block; `pretrain_mm_mlp_adapter` is loaded when given.
        dtype: Of all weights.
        bits: In which the language model's linear layers are held, see `quantization_config`.

    Raises:
        ConfigError: A part cannot be read, or a whole LLaVA folder is to be quantised.
        WeightsError: Weights of a part are missing.
    """
    if config.is_whole and bits != WHOLE:
        raise ConfigError(f"`train.bits` is {bits}, and `model.llm` a whole LLaVA model; parts alone are quantised")
    if config.is_whole:
        model, processor = _start_from_whole(config, dtype)
    else:
        tokenizer = load_tokenizer(config.llm)
        where = f"`model.llm`: `{config.llm}`"
        set_chat_template(tokenizer, config.chat_template, where)
        llm = load_language_model(config.llm, where, dtype, bits)
        append_image_token(llm, tokenizer)
        vision = load_vision(config, dtype)
        model, processor = assemble(llm, vision, tokenizer, dtype), make_processor(vision, tokenizer)
        mark_quantized(model, bits)
    if config.pretrain_mm_mlp_adapter is not None:
        load_projector(model, config.pretrain_mm_mlp_adapter)
    return model, processor


def _start_from_whole(config: ModelConfig, dtype: torch.dtype) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """As `build_lvlm`, for a `model` block whose `llm` and `vision_tower` are one and the same folder.

    Raises:
        UserError: As for `load_whole`.
        ConfigError: The tower has no expert that `detached` names.
    """
    model, processor = load_whole(config.llm, dtype)
    tokenizer = processor.tokenizer
    if tokenizer.convert_tokens_to_ids(processor.image_token) != model.config.image_token_id:
        raise ConfigError(f"`model.llm`: the tokenizer of `{config.llm}` has another id for `{processor.image_token}`")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    set_chat_template(tokenizer, config.chat_template, f"`model.llm`: `{config.llm}`")
    processor.chat_template = tokenizer.chat_template  # it is trained with this one
    if config.detached:
        tower = model.model.vision_tower
        check_names(getattr(tower, "expert_names", []), config.detached, "`model.detached`")
        tower.detach(*config.detached)
    model.requires_grad_(False)
    return model, processor
