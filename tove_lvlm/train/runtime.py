"""One training stage with torch: join the ranks, build, train, write the results. DESIGN.md section 5."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as td

from .. import dist
from ..config import save_yaml, to_dict
from ..lvlm.light import MODEL_FILE, PROJECTOR_FILE, adapter_parts, base_model, collect_light, save_light
from ..lvlm.lora import add_lora, collect_merged, collect_trainable, save_adapter, save_merged
from ..registry import require
from . import checkpoint
from .config import RunConfig
from .deepspeed_json import read_deepspeed
from .trainer import ToVETrainer

logger = logging.getLogger(__name__)

TEMPLATES = {"pretrain": "plain", "finetune": "v1"}


def run_stage(stage: str, run: RunConfig) -> int:
    """Train a stage and write its output folder; every rank must call.

    Args:
        stage: `pretrain` or `finetune`.
        run: The resolved configuration.

    Returns:
        0, or 128 + n when signal n ended the run after a checkpoint.

    Raises:
        UserError, DataError: What the user gave is wrong.
        TrainingStopped: The run cannot go on.
    """
    require("accelerate", extra="train")
    join_ranks(run)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    resume = agree_on_checkpoint(run)
    try:
        trainer, processor = build_trainer(stage, run)
        if resume is not None:
            checkpoint.check_continuity(resume, trainer.identity)
            logger.info("resuming from %s", resume)
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        if trainer.stopped_by is not None and trainer.state.global_step < trainer.state.max_steps:
            logger.warning(
                "stopped by signal %d at step %d; the same command goes on",
                trainer.stopped_by,
                trainer.state.global_step,
            )
            return 128 + trainer.stopped_by
        write_results(stage, run, trainer, processor)
        return 0
    finally:
        leave_ranks()


def join_ranks(run: RunConfig) -> None:
    """Make the process group before transformers looks for it (HOSTS.md 0): gloo without a GPU, nccl with one."""
    if run.train.deepspeed is None:
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    deepspeed = require("deepspeed", extra="train")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo", verbose=False)


def leave_ranks() -> None:
    """Close the process group; a rank whose peers are gone leaves all the same."""
    if td.is_initialized():
        with contextlib.suppress(RuntimeError, ValueError):
            td.destroy_process_group()


def agree_on_checkpoint(run: RunConfig) -> Path | None:
    """Rank 0 clears the folder and looks; all take its answer."""
    found = [None]
    if dist.is_main():
        found = [checkpoint.prepare_folder(run.train.output_dir, run.train.resume)]
        save_yaml(run, Path(run.train.output_dir) / "run.yaml")
    if td.is_initialized() and td.get_world_size() > 1:
        td.broadcast_object_list(found, src=0)
    return found[0]


def build_trainer(stage: str, run: RunConfig) -> tuple[ToVETrainer, Any]:
    """The model with its trainables for the stage, the data, and the trainer around them.

    Returns:
        (trainer, processor)
    """
    from transformers import set_seed

    from ..lvlm.build import build_lvlm

    arguments = training_arguments(run)  # first: under ZeRO-3 it decides how weights are loaded
    set_seed(run.train.seed)  # the same new weights on every rank
    model, processor = build_lvlm(run.model, dtype=torch.bfloat16 if run.train.bf16 else torch.float32)
    model = set_trainable(model, stage, run)
    dataset, collator, sampler = build_data(stage, run, model, processor)
    recorder = None
    if hasattr(base_model(model).model.vision_tower, "tove_fusion"):
        from ..tower.recorder import GateRecorder

        recorder = GateRecorder(model)
    trainer = ToVETrainer(
        run=run,
        identity=identity_of(stage, run, model),
        sampler=sampler,
        recorder=recorder,
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=collator,
    )
    log_sizes(stage, model, len(dataset))
    return trainer, processor


def set_trainable(model: torch.nn.Module, stage: str, run: RunConfig) -> torch.nn.Module:
    """Stage 1: projector and fusion. Stage 2: those and LoRA, or the whole language model without it."""
    model.requires_grad_(False)
    if stage == "finetune" and run.lora.lora_enable:
        model = add_lora(model, run.lora)
    elif stage == "finetune":
        model.model.language_model.requires_grad_(True)
        model.lm_head.requires_grad_(True)
    for name, part in adapter_parts(model).items():
        part.requires_grad_(name != "multi_modal_projector" or not run.train.freeze_mm_mlp_adapter)
    return model


def build_data(stage: str, run: RunConfig, model: torch.nn.Module, processor) -> tuple[Any, Any, Any]:
    """(data set, collator, sampler)."""
    from ..data.collator import ToVECollator
    from ..data.dataset import ToVEDataset
    from ..data.images import pixel_shape
    from ..data.sampler import ModalityLengthSampler, SeededSampler

    data, train = run.data, run.train
    num_image_tokens = model.config.image_seq_length
    dataset = ToVEDataset(
        data.train,
        tokenizer=processor.tokenizer,
        image_processor=processor.image_processor,
        num_image_tokens=num_image_tokens,
        model_max_length=train.model_max_length,
        template=TEMPLATES[stage],
        image_folder=data.image_folder,
        image_aspect_ratio=data.image_aspect_ratio,
        on_error=data.on_error,
        allow_symlinks=data.allow_symlinks,
    )
    collator = ToVECollator(
        tokenizer=processor.tokenizer,
        num_image_tokens=num_image_tokens,
        image_shape=pixel_shape(processor.image_processor),
        model_max_length=train.model_max_length,
    )
    if train.group_by_modality_length:
        per_update = dist.world_size() * train.gradient_accumulation_steps
        lengths = dataset.modality_lengths
        sampler = ModalityLengthSampler(lengths, train.per_device_train_batch_size, per_update, train.seed)
    else:
        sampler = SeededSampler(len(dataset), train.seed)
    return dataset, collator, sampler


def training_arguments(run: RunConfig):
    """transformers' arguments for the `train` block."""
    from transformers import TrainingArguments

    train, on_gpu = run.train, torch.cuda.is_available()
    deepspeed = None if train.deepspeed is None else read_deepspeed(train.deepspeed, train, dist.world_size())
    # Renamed in transformers 5.2x; the old name warns there.
    names = TrainingArguments.__dataclass_fields__
    recompute = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    return TrainingArguments(
        output_dir=train.output_dir,
        deepspeed=deepspeed,
        per_device_train_batch_size=train.per_device_train_batch_size,
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        learning_rate=train.learning_rate,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        max_steps=train.max_steps,
        num_train_epochs=train.num_train_epochs,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=train.warmup_ratio,  # a number below 1 is a ratio
        bf16=train.bf16,
        tf32=True if train.tf32 and on_gpu else None,
        logging_strategy="steps",
        logging_steps=train.logging_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=train.save_steps,
        seed=train.seed,
        dataloader_num_workers=train.dataloader_num_workers,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        report_to=train.report_to,
        disable_tqdm=True,
        use_cpu=not on_gpu,
        average_tokens_across_devices=True,
        **{recompute: train.gradient_checkpointing, f"{recompute}_kwargs": {"use_reentrant": False}},
    )


def identity_of(stage: str, run: RunConfig, model: torch.nn.Module) -> dict[str, Any]:
    """What a checkpoint must share with the run that goes on from it: what is trained, on what, in which order."""
    blocks = to_dict(run)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    keep = ("per_device_train_batch_size", "gradient_accumulation_steps", "seed", "group_by_modality_length", "bf16")
    return {
        "stage": stage,
        "world_size": dist.world_size(),
        "zero_stage": _zero_stage(run),
        **{f"model.{key}": value for key, value in blocks["model"].items()},
        **{f"data.{key}": value for key, value in blocks["data"].items()},
        **{f"lora.{key}": value for key, value in blocks["lora"].items()},
        **{f"train.{key}": blocks["train"][key] for key in keep},
        "trainables": hashlib.sha256("\n".join(names).encode()).hexdigest()[:16],
    }


def log_sizes(stage: str, model: torch.nn.Module, num_samples: int) -> None:
    """One line on what is trained."""
    from ..lvlm.gather import numel

    sizes = [(numel(parameter), parameter.requires_grad) for parameter in model.parameters()]
    trained, total = sum(n for n, on in sizes if on), sum(n for n, _ in sizes)
    logger.info("%s: %d samples, %s of %s parameters trained", stage, num_samples, f"{trained:,}", f"{total:,}")


def write_results(stage: str, run: RunConfig, trainer: ToVETrainer, processor) -> None:
    """Stage 1: the light folder. Stage 2: `adapter/`, and the merged model in `output_dir` when asked for.

    Everything is written beside its place and moved there at the end. Every rank must call.
    """
    output = Path(run.train.output_dir)
    model = trainer.model
    lora = stage == "finetune" and run.lora.lora_enable
    tensors = collect_light(model) if stage == "pretrain" else collect_trainable(model) if lora else {}
    merged = collect_merged(model) if stage == "finetune" and (run.train.save_merged or not lora) else {}
    about = {"model": to_dict(run.model), "image_aspect_ratio": run.data.image_aspect_ratio}
    try:
        if dist.is_main():
            writing = output / ".writing-results"
            shutil.rmtree(writing, ignore_errors=True)
            writing.mkdir()
            if stage == "pretrain":
                save_light(writing, tensors, model, processor)
            if lora:
                save_adapter(writing / "adapter", model, tensors, about)
                processor.save_pretrained(writing / "adapter")
            if merged:
                save_merged(writing, merged, model, processor)
            (writing / MODEL_FILE).write_text(json.dumps(about, indent=2), encoding="utf-8")
            move_into(writing, output)
            trainer.state.save_to_json(str(output / "trainer_state.json"))
            logger.info("written: %s", output)
    except OSError as error:
        raise checkpoint.CheckpointError(f"{output}: results could not be written: {error}") from error
    dist.barrier()


def move_into(source: Path, target: Path) -> None:
    """Move a folder's entries into another, weights last: whoever sees them finds the rest there too."""
    weights = (".safetensors", PROJECTOR_FILE)
    for entry in sorted(source.iterdir(), key=lambda path: (path.name.endswith(weights), path.name)):
        place = target / entry.name
        if entry.is_dir() and place.exists():
            shutil.rmtree(place)
        os.replace(entry, place)
    source.rmdir()


def _zero_stage(run: RunConfig) -> int | None:
    if run.train.deepspeed is None:
        return None
    return json.loads(Path(run.train.deepspeed).read_text()).get("zero_optimization", {}).get("stage", 0)
