"""Assemble a stock `LlavaForConditionalGeneration` from a language model, a tower and a fresh projector.

Nothing is initialised twice and no second copy is held: the language model and the tower are loaded by their own code,
the LLaVA shell is built on the meta device and the loaded modules are put in. Works under ZeRO-3, where the language
model is partitioned while it loads (docs/design.md, "Training").
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers import (
    MODEL_MAPPING,
    AddedToken,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ..config import ConfigError
from ..config.model import ModelConfig
from ..config.tower import BackboneConfig, ClipConfig, TowerConfig
from ..config.trained import left_out_of_start
from ..data.conversations import end_ids
from ..data.turns import IMAGE_TOKEN
from ..sharding import gathered
from ..storage.pretrained import load_pretrained, read_pretrained
from ..tower.build import build_tower
from ..tower.from_yaml import read_tower_yaml
from ..tower.image_processing import ToVEImageProcessor
from ..tower.modeling import ToVEVisionModel

logger = logging.getLogger(__name__)

_CLIP_TYPES = ("clip", "clip_vision_model")


@dataclass(frozen=True, kw_only=True)
class Vision:
    """A tower with what LLaVA must know to read it."""

    tower: PreTrainedModel
    image_processor: Any
    feature_layer: int
    select_strategy: Literal["default", "full"]
    extra_tokens: int
    """Tokens of the feature layer that are no patch (the class token)."""
    patch_size: int
    num_tokens: int
    """Visual tokens per image that reach the language model."""


def load_tokenizer(source: str):
    """The language model's tokenizer with `<unk>` as padding, as LLaVA has it, and `<image>` appended.

    It pads on the left, which is what whoever generates in batches needs; training pads by itself (`data.collator`).

    Raises:
        WeightsError: There is none, or transformers cannot read it.
        ConfigError: It splits `<image>`.
    """
    tokenizer = read_pretrained(AutoTokenizer, source, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    pieces = tokenizer.tokenize(f"a{IMAGE_TOKEN}\nb")
    if pieces.count(IMAGE_TOKEN) != 1:
        raise ConfigError(
            f"the tokenizer of `{source}` has the token {IMAGE_TOKEN} and splits it into {pieces!r:.80}; make it a "
            f"token of its own: tokenizer.add_tokens([AddedToken('{IMAGE_TOKEN}', special=True, normalized=False)], "
            "special_tokens=True)"
        )
    return tokenizer


def load_vision(config: ModelConfig, dtype: torch.dtype = torch.float32) -> Vision:
    """The tower that `model.vision_tower` asks for, with its weights.

    Raises:
        ConfigError: The folder holds neither a ToVE tower nor a vision encoder that LLaVA can read.
    """
    with without_zero3_init():
        if config.vision_tower == "clip":
            return _load_baseline(config, dtype)
        if config.vision_tower == "tove" or _model_type(config.vision_tower) == "tove_vision":
            source = read_tower(config) if config.vision_tower == "tove" else config.vision_tower
            return tove_vision(build_tower(source, detached=config.detached, dtype=dtype))
        read = _read_clip if _model_type(config.vision_tower) in _CLIP_TYPES else _read_encoder
        return stock_vision(*read(config.vision_tower, dtype), config.mm_vision_select_layer)


def read_tower(config: ModelConfig) -> TowerConfig:
    """The tower's YAML that a `model` block names: what was read already, else the file, whose missing keys are what
    they were where stage 1 trained the start.

    Raises:
        ConfigError: It names none, or the YAML does not fit.
    """
    return config.tower_config or read_tower_yaml(config.require_tower(), left_out=left_out_of_start(config))


def _load_baseline(config: ModelConfig, dtype: torch.dtype) -> Vision:
    """The encoder alone: `model.clip`, or the base in the tower's YAML; one that is no CLIP is a tower without experts,
    whose tokens are the same whatever class it has in transformers.
    """
    layer = config.mm_vision_select_layer
    if config.clip is not None:
        return clip_vision(*_read_clip(config.clip, dtype), layer)
    tower = read_tower(config)
    if isinstance(tower.base, BackboneConfig):
        return tove_vision(build_tower(tower.without_experts, dtype=dtype))
    if tower.base.pretrained is not None:
        return clip_vision(*_read_clip(tower.base.pretrained, dtype), layer)
    return clip_vision(*_random_clip(tower.base, dtype), layer)


def _random_clip(clip: ClipConfig, dtype: torch.dtype) -> tuple[CLIPVisionModel, Any]:
    vision_config = CLIPVisionConfig(**(clip.architecture or {}))
    side = cast(int, vision_config.image_size)  # one number, or the image is not square
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    model = CLIPVisionModel(vision_config)
    cast(nn.Module, model).to(dtype)  # transformers' own `to` loses `self` for type checkers
    return model, processor


def _read_clip(source: str, dtype: torch.dtype) -> tuple[CLIPVisionModel, Any]:
    model = load_pretrained(CLIPVisionModel, source, where=f"CLIP `{source}`", dtype=dtype, attn_implementation="sdpa")
    return model, read_pretrained(AutoImageProcessor, source, where=f"CLIP `{source}`", backend="pil")


def _read_encoder(source: str, dtype: torch.dtype) -> tuple[PreTrainedModel, Any]:
    where = f"`model.vision_tower`: `{source}`"
    kind = MODEL_MAPPING.get(type(read_pretrained(AutoConfig, source)), None)
    if getattr(kind, "main_input_name", None) != "pixel_values":
        raise ConfigError(f"{where} is neither a ToVE tower nor a CLIP or another vision encoder of transformers")
    model = load_pretrained(AutoModel, source, where=where, dtype=dtype, attn_implementation="sdpa")
    return model, read_pretrained(AutoImageProcessor, source, where=where, backend="pil")


def assemble(llm: PreTrainedModel, vision: Vision, tokenizer, dtype: torch.dtype) -> LlavaForConditionalGeneration:
    """The LLaVA shell on the meta device with the loaded parts and a fresh projector put in; everything frozen.

    Args:
        llm: A causal language model that has a row for `<image>`.
        vision: The tower.
        tokenizer: Gives the ids of `<image>`, padding and end; with the chat template of training.
        dtype: Of the projector.
    """
    config = llava_config(llm.config, vision, tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    with without_zero3_init():
        with torch.device("meta"):
            model = LlavaForConditionalGeneration(config)
        # Built alone, torch's own initialisation of nn.Linear stays, as in LLaVA.
        projector = type(model.model.multi_modal_projector)(config).to(dtype)
    model.model.language_model = llm.base_model
    model.lm_head = llm.get_output_embeddings()
    model.model.vision_tower = vision.tower
    model.model.multi_modal_projector = projector
    model.generation_config = llm.generation_config
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    ends = end_ids(tokenizer)
    model.generation_config.eos_token_id = ends[0] if len(ends) == 1 else ends
    model.config.dtype = dtype
    on_meta = [name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]
    if on_meta:
        raise RuntimeError(f"assembly left tensors on the meta device: {on_meta[:5]}")
    model.requires_grad_(False)
    return model


def llava_config(text_config, vision: Vision, image_token_id: int) -> LlavaConfig:
    """The configuration of the assembled model."""
    return LlavaConfig(
        vision_config=vision.tower.config,
        text_config=text_config,
        image_token_index=image_token_id,
        image_seq_length=vision.num_tokens,
        vision_feature_layer=vision.feature_layer,
        vision_feature_select_strategy=vision.select_strategy,
        projector_hidden_act="gelu",
        tie_word_embeddings=text_config.tie_word_embeddings,
    )


def make_processor(vision: Vision, tokenizer) -> LlavaProcessor:
    """The processor of stock transformers: image processor, tokenizer and its chat template."""
    return LlavaProcessor(
        image_processor=vision.image_processor,
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy=vision.select_strategy,
        num_additional_image_tokens=vision.extra_tokens,
        chat_template=tokenizer.chat_template,
    )


@contextmanager
def without_zero3_init() -> Iterator[None]:
    """Build modules as ordinary ones: transformers would partition them while ZeRO-3 is configured.

    The engine partitions them later with the rest. On the meta device partitioning at construction cannot work.
    """
    from transformers.integrations import deepspeed as integration

    zero3_config = integration._hf_deepspeed_config_weak_ref
    integration._hf_deepspeed_config_weak_ref = None
    try:
        yield
    finally:
        integration._hf_deepspeed_config_weak_ref = zero3_config


def tove_vision(tower: ToVEVisionModel) -> Vision:
    """How LLaVA reads a ToVE tower: `t_fuse` is the last hidden state and there is no class token."""
    return Vision(
        tower=tower,
        image_processor=ToVEImageProcessor.for_tower(tower.config),
        feature_layer=-1,
        select_strategy="full",
        extra_tokens=0,
        patch_size=tower.config.patch_size,
        num_tokens=tower.config.num_tokens,
    )


def clip_vision(tower: CLIPVisionModel, image_processor: Any, layer: int) -> Vision:
    """How LLaVA reads a plain CLIP: the patch tokens of hidden state `layer`.

    Raises:
        ConfigError: The CLIP has no such layer.
    """
    tower.requires_grad_(False)
    num_layers = tower.config.num_hidden_layers
    if not -(num_layers + 1) <= layer <= num_layers:
        raise ConfigError(f"`model.mm_vision_select_layer` is {layer}, but the CLIP has {num_layers} layers")
    # One number each: an image that is not square would be refused by LLaVA's processor.
    image_size, patch_size = cast("tuple[int, int]", (tower.config.image_size, tower.config.patch_size))
    side = image_size // patch_size
    return Vision(
        tower=tower,
        image_processor=image_processor,
        feature_layer=layer,
        select_strategy="default",
        extra_tokens=1,
        patch_size=patch_size,
        num_tokens=side * side,
    )


def stock_vision(tower: PreTrainedModel, image_processor: Any, layer: int) -> Vision:
    """How LLaVA reads a plain CLIP, or another vision encoder of transformers: the patch tokens of a hidden state.

    Raises:
        ConfigError: The encoder gives no square grid, more than one token besides, or has no such layer.
    """
    if isinstance(tower, CLIPVisionModel):
        return clip_vision(tower, image_processor, layer)
    tower.requires_grad_(False)
    kind, config = type(tower).__name__, tower.config
    size, patch_size = image_processor.crop_size["height"], getattr(config, "patch_size", None)
    if not isinstance(patch_size, int):
        raise ConfigError(f"a {kind} has no `patch_size`, so LLaVA cannot count its tokens")
    pixels_B3HW = torch.zeros(1, 3, size, size, dtype=tower.dtype, device=tower.device)
    try:
        with torch.no_grad():
            states = tower(pixel_values=pixels_B3HW, output_hidden_states=True).hidden_states
    except (TypeError, ValueError, RuntimeError) as error:  # SigLIP 2's NaFlex encoder takes flat patches
        raise ConfigError(f"a {kind} does not take images as LLaVA gives them: {error}") from error
    if not -len(states) <= layer < len(states):
        raise ConfigError(f"`model.mm_vision_select_layer` is {layer}, but the {kind} has {len(states) - 1} layers")
    num_patches = (size // patch_size) ** 2
    extra = states[layer].shape[1] - num_patches if states[layer].ndim == 3 else -1
    if extra not in (0, 1):
        raise ConfigError(
            f"a {kind} gives {tuple(states[layer].shape)} for {size} x {size} pixels; LLaVA reads {num_patches} patch "
            "tokens and at most one class token before them"
        )
    return Vision(
        tower=tower,
        image_processor=image_processor,
        feature_layer=layer,
        select_strategy="default" if extra else "full",
        extra_tokens=extra,
        patch_size=patch_size,
        num_tokens=num_patches,
    )


def image_token_rows(old_rows: int, new_rows: int) -> int:
    """Rows of the embeddings with `<image>`: a full-size output layer wants a multiple of 64 for the tensor cores."""
    return new_rows if old_rows < 4096 else -(-new_rows // 64) * 64


def _model_type(source: str) -> str:
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        raise ConfigError(f"`model.vision_tower`: folder `{source}` has no config.json")
    return read_pretrained(AutoConfig, source).model_type


def append_image_token(llm: PreTrainedModel, tokenizer) -> None:
    """Give `<image>` a row in both embeddings: the mean of the others, whose logit can never be the largest."""
    old_rows, new_rows = llm.config.vocab_size, len(tokenizer)
    if new_rows <= old_rows:
        return
    llm.resize_token_embeddings(image_token_rows(old_rows, new_rows), mean_resizing=False)
    embeddings = cast("tuple[nn.Embedding, nn.Linear]", (llm.get_input_embeddings(), llm.get_output_embeddings()))
    weights = {id(part.weight): cast(nn.Parameter, part.weight) for part in embeddings}
    for weight in weights.values():
        with gathered([weight], write=True), torch.no_grad():
            weight[old_rows:] = weight[:old_rows].float().mean(dim=0).to(weight.dtype)
