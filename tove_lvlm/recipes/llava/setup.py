"""LLaVA's two stages with torch: what is trained, on what, and what is written.

See docs/design.md, "Training".
"""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers.integrations import is_deepspeed_zero3_enabled

from ... import dist
from ...checkpoints.adapter import save_adapter
from ...checkpoints.from_config import build_lvlm
from ...checkpoints.merged import save_merged
from ...checkpoints.model_info import make_model_info, save_model_info, tower_settings
from ...checkpoints.projector import collect_projector
from ...checkpoints.stage1 import save_stage1
from ...config import to_dict
from ...config.llava import RunConfig
from ...config.tower import EARLIER
from ...data.collator import ToVECollator
from ...data.conversations import CHAT, PLAIN, V1, template_of
from ...data.dataset import ToVEDataset
from ...data.images import pixel_shape
from ...data.pixel_table import PixelTable
from ...data.sampler import ModalityLengthSampler, SeededSampler
from ...lvlm.chunked_loss import require_chunked_loss
from ...lvlm.image_processor import as_trained
from ...lvlm.lora import add_lora, collect_merged
from ...lvlm.padding_free import problem as rows_problem
from ...lvlm.parts import adapter_parts, as_llava, base_model, decoder_layers, text_config
from ...lvlm.quantization import check_bits
from ...sharding import collect_trainable
from ...tower.checkpoint import log_weights
from ...tower.recorder import GateRecorder, find_tower
from ...train.stage import TrainingSetup, block_values
from ..expert_cache import close_of, use_expert_cache
from ..expert_speed import use_expert_speed
from ..gate_panels import gate_pictures
from .trainer import ToVETrainer

if TYPE_CHECKING:
    from peft import PeftModel

    from ...tower.configuration import ToVEVisionConfig

logger = logging.getLogger(__name__)

_DEFAULT_CHANGED = ("transfer", "expert_resample")
"""Keys of a tower's YAML whose default is another one since there are checkpoints that do not name them."""


def template_for(stage: str, caption_template: str, tokenizer: Any) -> str:
    """The conversation that a stage learns: in stage 1 captions alone, if they are plain, else what the model is asked
    with.
    """
    return PLAIN if stage == "pretrain" and caption_template == PLAIN else template_of(tokenizer)


def build(stage: str, config: RunConfig) -> TrainingSetup:
    """The model with its trainables for the stage, and the data.

    Args:
        stage: `pretrain` or `finetune`.
        config: The resolved configuration.
    """
    if config.train.chunked_loss:
        require_chunked_loss()
    check_bits(config.train.bits, is_deepspeed_zero3_enabled())
    dtype = torch.bfloat16 if config.train.bf16 else torch.float32
    lvlm, processor = build_lvlm(config.model, dtype, config.train.bits)
    if (loaded := find_tower(lvlm)) is not None:
        log_weights(loaded, stage)
    model = set_trainable(lvlm, stage, config)
    pixels = (config.data.image_aspect_ratio, config.data.transparency)
    processor.image_processor = as_trained(processor.image_processor, *pixels)
    table = PixelTable.of(processor.image_processor, pixels[0]) if config.train.pixels_as_bytes else None
    dataset, collator, sampler = build_data(stage, config, model, processor, as_bytes=table is not None)
    cache = use_expert_cache(base_model(model).model.vision_tower, config.train)
    use_expert_speed(base_model(model).model.vision_tower, config.train)
    recorder = None
    if hasattr(base_model(model).model.vision_tower, "tove_fusion"):
        recorder = GateRecorder(model)
    vision_tower, forget = base_model(model).model.vision_tower, recorder.clear if recorder is not None else None
    pictures = gate_pictures(config.train, vision_tower, [dataset], table, forget)
    # Before `model.chat_template`, which follows from it: of several differences the first is named.
    identity: dict[str, Any] = {"data.caption_template": config.data.caption_template}
    identity |= block_values(config, "model", "data", "lora")
    identity["train.bits"] = config.train.bits
    identity["train.group_by_modality_length"] = config.train.group_by_modality_length
    identity["model.chat_template"] = _template_identity(
        template_for(stage, config.data.caption_template, processor.tokenizer), processor.tokenizer
    )
    if recorder is not None:
        tower = cast("ToVEVisionConfig", base_model(model).config.vision_config)
        identity |= {f"tower.{key}": value for key, value in tower_settings(tower).items() if key in _DEFAULT_CHANGED}
    return TrainingSetup(
        model=model,
        dataset=dataset,
        collator=collator,
        sampler=sampler,
        identity=identity,
        identity_before={
            "model.chat_template": PLAIN if stage == "pretrain" else V1,
            "train.bits": 16,
            "lora.use_dora": False,
            "lora.use_rslora": False,
            "data.caption_template": PLAIN,
            "data.transparency": "ignore",
            "data.reduce_large_images": False,
            "data.direct_resize": False,
            **{f"tower.{key}": EARLIER[key] for key in _DEFAULT_CHANGED},
        },
        close=close_of(cache),
        layers=decoder_layers(model),
        pictures=pictures,
        results=lambda trainer: gather_results(stage, config, trainer.model, processor),
        trainer_class=ToVETrainer,
        trainer_arguments={"recorder": recorder, "padding_free": collator.padding_free, "pixel_table": table},
    )


def _template_identity(template: str, tokenizer: Any) -> str:
    if template != CHAT:
        return template
    return f"{template} {hashlib.sha256(tokenizer.chat_template.encode()).hexdigest()[:16]}"


def set_trainable(model: torch.nn.Module, stage: str, config: RunConfig) -> torch.nn.Module:
    """Stage 1: projector and fusion. Stage 2: those and LoRA, or the whole language model without it."""
    model.requires_grad_(False)
    if stage == "finetune" and config.lora.lora_enable:
        model = add_lora(model, config.lora)
    elif stage == "finetune":
        llava = as_llava(model)
        llava.model.language_model.requires_grad_(True)
        llava.lm_head.requires_grad_(True)
    for name, part in adapter_parts(model).items():
        part.requires_grad_(name != "multi_modal_projector" or not config.train.freeze_mm_mlp_adapter)
    return model


def padding_free(config: RunConfig, model: torch.nn.Module) -> bool:
    """Whether the rows of a batch are concatenated: `train.padding_free`, unless the language model cannot."""
    problem = rows_problem(text_config(as_llava(model).config))
    if config.train.padding_free and problem is not None:
        logger.warning("batches are padded although `train.padding_free` is true: the language model %s", problem)
    return config.train.padding_free and problem is None


def build_data(
    stage: str, config: RunConfig, model: torch.nn.Module, processor, as_bytes: bool = False
) -> tuple[Any, Any, Any]:
    """(data set, collator, sampler)."""
    data, train = config.data, config.train
    num_image_tokens = as_llava(model).config.image_seq_length
    template = template_for(stage, data.caption_template, processor.tokenizer)
    if template == PLAIN and not processor.tokenizer("").input_ids:
        logger.warning(
            "the tokenizer puts no BOS first, so that with `data.caption_template: plain` nothing stands before an "
            "image; from few captions `chat` learned to read pictures sooner (docs/design.md, Conversations)"
        )
    dataset = ToVEDataset(
        data.train,
        tokenizer=processor.tokenizer,
        image_processor=processor.image_processor,
        num_image_tokens=num_image_tokens,
        model_max_length=train.model_max_length,
        template=template,
        image_folder=data.image_folder,
        image_aspect_ratio=data.image_aspect_ratio,
        on_error=data.on_error,
        max_error_share=data.max_error_share,
        allow_symlinks=data.allow_symlinks,
        as_bytes=as_bytes,
        reduce_large_images=data.reduce_large_images,
        direct_resize=data.direct_resize,
    )
    collator = ToVECollator(
        tokenizer=processor.tokenizer,
        num_image_tokens=num_image_tokens,
        image_shape=pixel_shape(processor.image_processor),
        model_max_length=train.model_max_length,
        padding_free=padding_free(config, model),
        logits_at_labels=train.logits_at_labels,
    )
    if train.group_by_modality_length:
        per_update = dist.world_size() * train.gradient_accumulation_steps
        lengths = dataset.modality_lengths
        sampler: SeededSampler = ModalityLengthSampler(
            lengths, train.per_device_train_batch_size, per_update, train.seed
        )
    else:
        sampler = SeededSampler(len(dataset), train.seed, dataset.records.shards)
    return dataset, collator, sampler


def gather_results(stage: str, config: RunConfig, model: torch.nn.Module, processor) -> Callable[[Path], None]:
    """Stage 1: the light folder. Stage 2: `adapter/`, and the merged model when asked for.

    Every rank must call; what comes back writes them, on rank 0.
    """
    lora = stage == "finetune" and config.lora.lora_enable
    tensors = collect_projector(model) if stage == "pretrain" else collect_trainable(model) if lora else {}
    merged = collect_merged(model) if stage == "finetune" and (config.train.save_merged or not lora) else {}
    data = config.data
    model_info = make_model_info(to_dict(config.model), model, data.image_aspect_ratio, data.transparency)

    def write(folder: Path) -> None:
        if stage == "pretrain":
            save_stage1(folder, tensors, model, processor)
        if lora:
            save_adapter(folder / "adapter", cast("PeftModel", model), tensors, model_info)
            processor.save_pretrained(folder / "adapter")
        if merged:
            save_merged(folder, merged, model, processor)
        save_model_info(folder, model_info)

    return write
