"""The base model's runs with torch: what is trained, on what, and what is written."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import VisionEncoderDecoderModel

from ...checkpoints.encoder_decoder import load_encoder_decoder, save_encoder_decoder
from ...checkpoints.model_info import make_model_info, save_model_info
from ...config import to_dict
from ...config.encoder_decoder import EncoderDecoderConfig, RunConfig
from ...config.tower import check_names
from ...data.pixel_table import PixelTable
from ...data.sampler import MixSampler
from ...data.text_dataset import TextCollator, TextDataset, TextMix
from ...lvlm.build import without_zero3_init
from ...lvlm.encoder_decoder import build_encoder_decoder
from ...lvlm.image_processor import as_trained
from ...lvlm.lora import collect_merged
from ...lvlm.prompt_processor import PromptProcessor
from ...lvlm.trainable import set_trainable
from ...sharding import numel
from ...tower.checkpoint import log_weights
from ...tower.modeling import ToVEVisionModel
from ...tower.recorder import find_tower
from ...train.stage import TrainingSetup, block_values
from ..expert_cache import close_of, use_expert_cache
from ..expert_speed import use_expert_speed
from ..gate_panels import gate_pictures
from .objective import TextObjective
from .trainer import TextTrainer

logger = logging.getLogger(__name__)


def build(config: RunConfig) -> TrainingSetup:
    """The model with its trainables, and the data.

    Args:
        config: The resolved configuration.
    """
    model, processor = build_model(config.model, torch.bfloat16 if config.train.bf16 else torch.float32)
    if (tower := find_tower(model)) is not None:
        log_weights(tower, "training")
    set_trainable(model, config.train.trainable)
    _log_trainable(model, config.train.trainable)
    pixels = (config.data.image_aspect_ratio, config.data.transparency)
    processor.image_processor = as_trained(processor.image_processor, *pixels)
    cache = use_expert_cache(cast(ToVEVisionModel, model.encoder), config.train)
    use_expert_speed(model.encoder, config.train)
    table = PixelTable.of(processor.image_processor, pixels[0]) if config.train.pixels_as_bytes else None
    dataset = build_data(config, processor, as_bytes=table is not None)
    weights = [source.weight for source in config.data.mix]
    identity = block_values(config, "model", "data")
    names = ("trainable", "label_smoothing", "loss_reduction", "balance_loss_weight")
    identity |= {f"train.{name}": getattr(config.train, name) for name in names}
    return TrainingSetup(
        model=TextObjective(model, config.train.label_smoothing),
        dataset=dataset,
        collator=TextCollator(pad_token_id=cast(int, model.generation_config.pad_token_id)),
        sampler=MixSampler(dataset.sizes, weights, config.train.seed, dataset.shards),
        identity=identity,
        identity_before={
            "data.transparency": "ignore",
            "data.reduce_large_images": False,
            "data.direct_resize": False,
        },
        close=close_of(cache),
        pictures=gate_pictures(config.train, model.encoder, dataset.sources, table),
        results=lambda trainer: gather_results(config, trainer.model.model, processor),
        trainer_class=TextTrainer,
        trainer_arguments={"pixel_table": table},
    )


def build_model(
    config: EncoderDecoderConfig, dtype: torch.dtype = torch.float32
) -> tuple[VisionEncoderDecoderModel, PromptProcessor]:
    """The model of a `model` block, from parts or from a finished run, everything frozen.

    Args:
        config: The block.
        dtype: Of all weights.

    Raises:
        ConfigError: A part cannot be read or does not fit.
    """
    if config.pretrained is None:
        return build_encoder_decoder(config, dtype)
    with without_zero3_init():  # the engine partitions the whole later
        model, processor = load_encoder_decoder(config.pretrained, dtype)
    if config.detached:
        tower = cast(ToVEVisionModel, model.encoder)
        check_names(tower.expert_names, config.detached, "`model.detached`")
        tower.detach(*config.detached)
    cast(nn.Module, model).requires_grad_(False)
    return model, processor


def build_data(config: RunConfig, processor: PromptProcessor, as_bytes: bool = False) -> TextMix:
    """The sources as one data set.

    Args:
        config: The resolved configuration.
        processor: The model's.
        as_bytes: As `RecordDataset`.

    Raises:
        DataError: A sample is broken, or too many are.
    """
    data = config.data
    return TextMix(
        [
            TextDataset(
                source.files,
                encoder=processor,
                source_format=source.format,
                prefix=source.prefix if source.task == "caption" else None,
                augmented=data.augment,
                seed=config.train.seed + number,
                image_processor=processor.image_processor,
                image_folder=source.image_folder,
                image_aspect_ratio=data.image_aspect_ratio,
                on_error=data.on_error,
                max_error_share=data.max_error_share,
                allow_symlinks=data.allow_symlinks,
                as_bytes=as_bytes,
                reduce_large_images=data.reduce_large_images,
                direct_resize=data.direct_resize,
            )
            for number, source in enumerate(data.mix)
        ]
    )


def gather_results(
    config: RunConfig, model: VisionEncoderDecoderModel, processor: PromptProcessor
) -> Callable[[Path], None]:
    """The whole model's weights. Every rank must call; what comes back writes them, on rank 0."""
    tensors = collect_merged(model)
    data = config.data
    model_info = make_model_info(to_dict(config.model), model, data.image_aspect_ratio, data.transparency)

    def write(folder: Path) -> None:
        save_encoder_decoder(folder, tensors, model, processor)
        save_model_info(folder, model_info)

    return write


def _log_trainable(model: VisionEncoderDecoderModel, plan: str) -> None:
    """What a plan trains, part by part."""
    sizes: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        part = "tove_fusion" if ".tove_fusion." in name else name.split(".", 1)[0]
        trained, total = sizes.setdefault(part, [0, 0])
        sizes[part] = [trained + numel(parameter) * parameter.requires_grad, total + numel(parameter)]
    parts = ", ".join(f"{part} {trained:,} of {total:,}" for part, (trained, total) in sizes.items() if trained)
    logger.info("train.trainable %s: %s parameters", plan, parts)
