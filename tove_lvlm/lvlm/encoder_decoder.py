"""The base model: transformers' `VisionEncoderDecoderModel` with a ToVE tower as its encoder.

The decoder is any causal language model of transformers with cross-attention (RoBERTa, BERT, GPT-2, BART). Where it has
another width than the tower, the model itself has a linear layer in between. CLIP alone, the baseline, is a tower
without experts, so that both read the same tokens of the same layer.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    VisionEncoderDecoderModel,
)

from ..config import ConfigError
from ..config.encoder_decoder import EncoderDecoderConfig
from ..config.tower import TowerConfig
from ..storage.pretrained import load_pretrained, read_pretrained
from ..tower.build import build_tower
from ..tower.from_yaml import read_tower_yaml
from ..tower.image_processing import ToVEImageProcessor
from ..tower.modeling import ToVEVisionModel
from .build import without_zero3_init
from .prompt_processor import PromptProcessor
from .trainable import cross_attention_names

_SHARED_EMBEDDING = {r"^(model\.)?shared\.weight$": "model.decoder.embed_tokens.weight"}
"""A whole BART names the embedding that its encoder and decoder share by itself."""


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Ids that every text of a decoder has."""

    start: int
    """What a text begins with."""
    end: int
    pad: int


def special_tokens(decoder: PreTrainedModel, tokenizer: Any, where: str) -> SpecialTokens:
    """The ids with which a decoder's texts begin, end and are padded.

    Args:
        decoder: Its configuration may state another start than the tokenizer (BART starts with its end).
        tokenizer: The decoder's.
        where: Named in the message.

    Raises:
        ConfigError: There is no start or no end.
    """
    start = getattr(decoder.config, "decoder_start_token_id", None)
    if start is None:
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    for name, value in (("begins (`bos_token` or `cls_token`)", start), ("ends (`eos_token` or `sep_token`)", end)):
        if value is None:
            raise ConfigError(
                f"`model.decoder`: the tokenizer of `{where}` has no token with which a text {name}; set one in its "
                "tokenizer_config.json"
            )
    pad = tokenizer.pad_token_id
    return SpecialTokens(start=start, end=end, pad=end if pad is None else pad)


def load_decoder(source: str, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, Any]:
    """A language model as a decoder with cross-attention, and its tokenizer.

    Args:
        source: Hub id or folder. Cross-attention that its weights do not have is new.
        dtype: Of all weights.

    Raises:
        ConfigError: It has no cross-attention, or fewer embeddings than its tokenizer has tokens.
        WeightsError: Other weights are missing.
    """
    where = f"`model.decoder`: `{source}`"
    config = read_pretrained(AutoConfig, source, where=where)
    config.is_decoder = config.add_cross_attention = True
    check_decoder(config, source)
    tokenizer = read_pretrained(AutoTokenizer, source, where=where)
    decoder: PreTrainedModel = load_pretrained(
        AutoModelForCausalLM,
        source,
        where=where,
        may_lack=cross_attention_names,
        config=config,
        dtype=dtype,
        attn_implementation="sdpa",
        key_mapping=_SHARED_EMBEDDING,
    )
    rows = decoder.config.vocab_size
    if len(tokenizer) > rows:
        raise ConfigError(
            f"`model.decoder`: the tokenizer of `{source}` has {len(tokenizer)} tokens, its model embeddings for "
            f"{rows}; give the model the missing rows with `resize_token_embeddings` and save it"
        )
    return decoder, tokenizer


def check_decoder(config: Any, source: str) -> None:
    """Whether an architecture can look at an image; nothing is allocated.

    Raises:
        ConfigError: It cannot.
    """
    with without_zero3_init(), torch.device("meta"):
        try:
            decoder = AutoModelForCausalLM.from_config(config)
        except ValueError as error:
            raise ConfigError(f"`model.decoder`: `{source}` is no language model: {error}") from error
    if not cross_attention_names(decoder):
        raise ConfigError(
            f"`model.decoder`: `{source}` is a {type(decoder).__name__}, which has no cross-attention to look at an "
            "image with; expected RoBERTa, BERT, GPT-2 or BART, or another with `add_cross_attention`"
        )


def read_encoder_tower(config: EncoderDecoderConfig) -> TowerConfig:
    """The tower that the block describes; for `clip` the same without its experts.

    Raises:
        ConfigError: The YAML does not fit.
    """
    tower = config.tower_config or read_tower_yaml(cast(str, config.tower))
    return tower.without_experts if config.vision_tower == "clip" else tower


def load_encoder(config: EncoderDecoderConfig, dtype: torch.dtype = torch.float32) -> ToVEVisionModel:
    """The tower with its weights.

    Raises:
        ConfigError: The folder holds no ToVE tower, or the YAML does not fit.
    """
    folder = config.vision_tower
    if folder in ("tove", "clip"):
        source: TowerConfig | str = read_encoder_tower(config)
    elif read_pretrained(AutoConfig, folder).model_type == "tove_vision":
        source = folder
    else:
        raise ConfigError(f"`model.vision_tower`: `{folder}` is no saved ToVE tower; expected `tove`, `clip` or one")
    with without_zero3_init():
        return build_tower(source, detached=config.detached, dtype=dtype)


def assemble(
    tower: ToVEVisionModel, decoder: PreTrainedModel, tokenizer: Any, where: str
) -> tuple[VisionEncoderDecoderModel, PromptProcessor]:
    """The whole model, everything frozen, and its processor.

    Args:
        tower: The encoder.
        decoder: With cross-attention.
        tokenizer: The decoder's.
        where: The decoder's place, for a message.

    Raises:
        ConfigError: As for `special_tokens`.
    """
    tokens = special_tokens(decoder, tokenizer, where)
    with without_zero3_init():
        model = VisionEncoderDecoderModel(encoder=tower, decoder=decoder)
        if hasattr(model, "enc_to_dec_proj"):
            # Zero start, our choice: tokens of another scale than the decoder reads cost it what it knew.
            connector = model.enc_to_dec_proj.to(decoder.dtype)
            nn.init.zeros_(connector.weight)
            nn.init.zeros_(connector.bias)
    ids = {"bos_token_id": tokens.start, "eos_token_id": tokens.end, "pad_token_id": tokens.pad}
    model.config.update({"decoder_start_token_id": tokens.start, **ids})
    # Nothing of what the decoder's authors generated: BART's forces an end, which would be all of a one-word answer.
    model.generation_config = GenerationConfig(decoder_start_token_id=tokens.start, **ids)
    tokenizer.padding_side = "right"
    processor = PromptProcessor(ToVEImageProcessor.for_tower(tower.config), tokenizer).for_model(model)
    cast(nn.Module, model).requires_grad_(False)
    return model, processor


def build_encoder_decoder(
    config: EncoderDecoderConfig, dtype: torch.dtype = torch.float32
) -> tuple[VisionEncoderDecoderModel, PromptProcessor]:
    """The model of a `model` block that starts from parts.

    Args:
        config: The block, without `pretrained`.
        dtype: Of all weights.

    Raises:
        ConfigError: A part cannot be read or does not fit.
    """
    source = cast(str, config.decoder)
    decoder, tokenizer = load_decoder(source, dtype)
    return assemble(load_encoder(config, dtype), decoder, tokenizer, Path(source).name)
