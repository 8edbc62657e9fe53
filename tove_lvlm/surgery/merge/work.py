"""Merging with torch: teacher, student and images, and what is gathered at the end."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ... import dist
from ...config import UserError, to_dict
from ...data.sampler import SeededSampler
from ...lvlm.build import without_zero3_init
from ...lvlm.loading import Loaded, open_checkpoint
from ...lvlm.lora import collect_merged
from ...stage import Work
from ...storage import fingerprint
from . import writing
from .cache import TargetCache
from .config import MergeRun
from .distiller import Distiller
from .images import ImageDataset, collate
from .student import add_lora, cut, whole_student

logger = logging.getLogger(__name__)

_CHUNK = 32
"""Images that the teacher sees at once before training."""


def build(run: MergeRun) -> Work:
    """Teacher, student and images.

    Raises:
        UserError: The checkpoint holds no tower that could be merged, or the images cannot be used.
    """
    with without_zero3_init():  # the engine partitions the whole later
        loaded = open_checkpoint(run.model.checkpoint)
        teacher = _teacher(loaded)
        whole = whole_student(teacher, run.model.student)
        student = cut(whole, teacher.config.select_layer)
        if run.lora.lora_enable:
            student.requires_grad_(False)
            student = add_lora(student, run.lora)
    source = writing.Source.of(loaded, teacher, fingerprint(teacher.state_dict()))
    aspect_ratio = run.data.image_aspect_ratio or loaded.image_aspect_ratio
    cache = None
    if run.merge.cache_teacher is not None:
        cache = TargetCache(
            run.merge.cache_teacher,
            tower=source.fingerprint,
            config=teacher.config.to_dict(),
            preprocessing=[loaded.image_processor.to_dict(), aspect_ratio],
            bf16=run.train.bf16,
            token_weight=run.merge.token_weight,
        )
    dataset = ImageDataset(
        run.data.images,
        loaded.image_processor,
        aspect_ratio,
        image_folder=run.data.image_folder,
        max_broken=run.data.max_broken,
        allow_symlinks=run.data.allow_symlinks,
        cache=cache,
    )
    del loaded  # the language model; it is read again where the merged one is written
    sampler = SeededSampler(len(dataset), run.train.seed)
    distiller = Distiller(teacher, student, run.merge, run.data.horizontal_flip, cache)
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    distiller.to(device, torch.bfloat16 if run.train.bf16 else torch.float32)
    prepare(distiller, run, dataset, sampler)
    blocks = to_dict(run)
    identity = {f"{b}.{key}": value for b in ("model", "data", "merge", "lora") for key, value in blocks[b].items()}
    return Work(
        model=distiller,
        dataset=dataset,
        collator=collate,
        sampler=sampler,
        identity=identity | {"tower": source.fingerprint},
        results=lambda trainer: gather_results(run, trainer, whole, source, dataset),
    )


def prepare(distiller: Distiller, run: MergeRun, dataset: ImageDataset, sampler: SeededSampler) -> None:
    """Show the teacher a few images: is there knowledge to merge, and how is its output spread?

    Every rank looks at the same images, the first of the order, so that all have the same figures.

    Raises:
        UserError: t_fuse is t_clip, because the fusion was never trained.
    """
    order = list(sampler)[: run.merge.normalize_images if run.merge.normalize_target == "channel" else _CHUNK]
    chunks = [order[at : at + _CHUNK] for at in range(0, len(order), _CHUNK)]
    pixels = [torch.stack([dataset[i].pixels_3HW for i in chunk]).to(distiller.mean_D.device) for chunk in chunks]
    distiller.eval()
    t_clip_BND, t_fuse_BND = distiller.target(pixels[0])
    if torch.equal(t_clip_BND, t_fuse_BND):
        raise UserError(
            f"the tower in `{run.model.checkpoint}` gives CLIP's own tokens: its fusion was never trained, so there is "
            "nothing to merge; train it with scripts/pretrain_projector.py first"
        )
    if run.merge.normalize_target == "channel":
        distiller.measure_target(pixels)


def gather_results(
    run: MergeRun, trainer: Any, whole: torch.nn.Module, source: "writing.Source", dataset: ImageDataset
) -> Callable[[Path], None]:
    """The student's weights and the images that were skipped, from all ranks; what comes back writes, on rank 0."""
    distiller = trainer.model
    learnt = collect_merged(distiller.student)
    skipped = dist.all_reduce_sum(dataset.skips.bad.float().to(trainer.args.device)).cpu()
    last = next((line for line in reversed(trainer.state.log_history) if "gap" in line), {})
    report = {
        "steps": trainer.state.global_step,
        "images": len(dataset),
        "skipped": [dataset.names[index] for index in skipped.nonzero().flatten().tolist()],
        **{key: last[key] for key in ("loss", "gap", "cosine") if key in last},
        "merge": to_dict(run.merge),
        "lora": run.lora.lora_enable,
        "data": to_dict(run.data),
    }
    if report["skipped"]:
        logger.warning("%d of %d images were broken and skipped", len(report["skipped"]), len(dataset))

    def write(folder: Path) -> None:
        whole.load_state_dict(whole.state_dict() | learnt)
        writing.write(folder, Path(run.train.output_dir), whole.to(distiller.teacher.dtype), source, report, run)

    return write


def _teacher(loaded: Loaded) -> torch.nn.Module:
    teacher = loaded.tower
    if teacher is None:
        raise UserError(f"`model.checkpoint`: the model in `{loaded.folder}` has a plain CLIP, no tower to merge")
    if not teacher.attached_names:
        raise UserError(
            f"`model.checkpoint`: the tower in `{loaded.folder}` has no expert attached, so it is its CLIP already; "
            "attach experts first (tove attach)"
        )
    return teacher
