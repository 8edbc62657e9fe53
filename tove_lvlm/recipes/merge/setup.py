"""Merging with torch: teacher, student and images, and what is gathered at the end."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ... import dist
from ...checkpoints import LoadedCheckpoint, open_checkpoint
from ...config import UserError, to_dict
from ...config.merge import MergeRunConfig
from ...data.sampler import SeededSampler
from ...lvlm.build import without_zero3_init
from ...lvlm.lora import collect_merged
from ...storage import fingerprint
from ...tower.modeling import ToVEVisionModel
from ...train.stage import TrainingSetup, block_values
from ..expert_cache import close_of, use_expert_cache
from ..expert_speed import use_expert_speed
from . import writing
from .distiller import Distiller
from .images import ImageDataset, collate
from .student import add_lora, trained_part, whole_student

logger = logging.getLogger(__name__)

_CHUNK = 32
"""Images that the teacher sees at once before training."""


def build(config: MergeRunConfig) -> TrainingSetup:
    """Teacher, student and images.

    Raises:
        UserError: The checkpoint holds no tower that could be merged, or the images cannot be used.
    """
    with without_zero3_init():  # the engine partitions the whole later
        loaded = open_checkpoint(config.model.checkpoint)
        teacher = _teacher(loaded)
        full_student = whole_student(teacher, config.model.student)
        student = trained_part(full_student, teacher)
        learner = add_lora(student, config.lora) if config.lora.lora_enable else student
    source = writing.MergeSource.of(loaded, teacher, full_student, fingerprint(teacher.state_dict()))
    aspect_ratio = config.data.image_aspect_ratio or loaded.image_aspect_ratio
    dataset = ImageDataset(
        config.data.images,
        loaded.image_processor,
        aspect_ratio,
        image_folder=config.data.image_folder,
        max_error_share=config.data.max_error_share,
        allow_symlinks=config.data.allow_symlinks,
        direct_resize=config.data.direct_resize,
    )
    del loaded  # the language model; it is read again where the merged one is written
    sampler = SeededSampler(len(dataset), config.train.seed)
    distiller = Distiller(teacher, learner, config.merge, config.data.horizontal_flip)
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    distiller.to(device, torch.bfloat16 if config.train.bf16 else torch.float32)
    # Where the class token's attention weighs the tokens, it is read off a CLIP that runs.
    cache = use_expert_cache(teacher, config.train, with_clip=config.merge.token_weight == "none")
    use_expert_speed(teacher, config.train)
    prepare(distiller, config, dataset, sampler)
    identity = block_values(config, "model", "data", "merge", "lora") | {"tower": source.fingerprint}
    identity.pop("merge.cache_teacher")  # where something is kept changes nothing that a checkpoint holds
    return TrainingSetup(
        model=distiller,
        dataset=dataset,
        collator=collate,
        sampler=sampler,
        identity=identity,
        identity_before={"data.direct_resize": False},
        close=close_of(cache),
        results=lambda trainer: gather_results(config, trainer, full_student, source, dataset),
    )


def prepare(distiller: Distiller, config: MergeRunConfig, dataset: ImageDataset, sampler: SeededSampler) -> None:
    """Show the teacher a few images: is there knowledge to merge, and how is its output spread?

    Every rank looks at the same images, the first of the order, so that all have the same figures.

    Raises:
        UserError: t_fuse is t_clip, because the fusion was never trained.
    """
    order = list(sampler)[: config.merge.normalize_images if config.merge.normalize_target == "channel" else _CHUNK]
    chunks = [order[at : at + _CHUNK] for at in range(0, len(order), _CHUNK)]
    pixels = [torch.stack([dataset[i].pixels_3HW for i in chunk]).to(distiller.mean_D.device) for chunk in chunks]
    distiller.eval()
    t_clip_BND, t_fuse_BND = distiller.target(pixels[0])
    if torch.equal(t_clip_BND, t_fuse_BND):
        raise UserError(
            f"the tower in `{config.model.checkpoint}` gives CLIP's own tokens: its fusion was never trained, so "
            "there is nothing to merge; train it with scripts/pretrain_projector.py first"
        )
    if config.merge.normalize_target == "channel":
        distiller.measure_target(pixels)


def gather_results(
    config: MergeRunConfig,
    trainer: Any,
    full_student: PreTrainedModel,
    source: "writing.MergeSource",
    dataset: ImageDataset,
) -> Callable[[Path], None]:
    """The student's weights and the images that were skipped, from all ranks; what comes back writes, on rank 0."""
    distiller = trainer.model
    learned = collect_merged(distiller.student)
    skipped = dist.all_reduce_sum(dataset.skips.bad.float().to(trainer.args.device)).cpu()
    nothing: dict[str, Any] = {}
    last = next((line for line in reversed(trainer.state.log_history) if "gap" in line), nothing)
    report = {
        "steps": trainer.state.global_step,
        "images": len(dataset),
        "skipped": [dataset.names[index] for index in skipped.nonzero().flatten().tolist()],
        **{key: last[key] for key in ("loss", "gap", "cosine") if key in last},
        "merge": to_dict(config.merge),
        "lora": config.lora.lora_enable,
        "data": to_dict(config.data),
    }
    if report["skipped"]:
        logger.warning("%d of %d images were broken and skipped", len(report["skipped"]), len(dataset))

    def write(folder: Path) -> None:
        full_student.load_state_dict(full_student.state_dict() | learned)
        writing.write(folder, full_student.to(distiller.teacher.dtype), source, report, config)

    return write


def _teacher(loaded: LoadedCheckpoint) -> ToVEVisionModel:
    teacher = loaded.tower
    if teacher is None:
        raise UserError(f"`model.checkpoint`: the model in `{loaded.folder}` has a plain CLIP, no tower to merge")
    if not teacher.attached_names:
        raise UserError(
            f"`model.checkpoint`: the tower in `{loaded.folder}` has no expert attached, so it is its CLIP already; "
            "attach experts first (tove attach)"
        )
    return teacher
