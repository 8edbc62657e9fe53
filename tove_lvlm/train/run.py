"""One stage of training with torch: join the ranks, build, train, write the results.

Nothing here knows what is trained: a stage brings the model, the data and what is written.

See docs/design.md, "Training".
"""

import contextlib
import copy
import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as td
from transformers import TrainingArguments, set_seed

from .. import dist
from ..config import save_yaml, to_dict
from ..provenance import RUN_FILE, cpu_has_fast_bf16, of_run
from ..registry import require
from ..sharding import numel
from ..storage import atomic_file, disk_reason, lock_folder, save_json, told_disk_errors
from . import checkpoint
from .launch import local_world_size
from .loop import GuardedTrainer
from .manifest import CheckpointError
from .precision import float32_trainables
from .shared_memory import check_shared_memory
from .stage import Stage, TrainingSetup

logger = logging.getLogger(__name__)

_KEPT = ("per_device_train_batch_size", "gradient_accumulation_steps", "seed", "bf16", "fsdp")


def run_stage(stage: Stage, config: Any) -> int:
    """Train a stage and write its output folder; every rank must call.

    Args:
        stage: What to train.
        config: The resolved configuration.

    Returns:
        0, or 128 + n when signal n ended the run after a checkpoint.

    Raises:
        UserError, DataError: What the user gave is wrong.
        TrainingStopped: The run cannot go on.
    """
    require("accelerate", extra="train")
    join_ranks(config)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    try:
        # Another run's files are not even looked at, and this run's not touched before nothing can refuse it.
        with dist.entered_by_main(lock_folder(config.train.output_dir)):
            return _train(stage, config)
    finally:
        leave_ranks()


def _train(stage: Stage, config: Any) -> int:
    resume = dist.agree(lambda: _newest_checkpoint(config.train) if config.train.resume else None)
    trainer, setup = build_trainer(stage, config)
    try:
        return _train_and_write(config, trainer, setup, resume)
    finally:
        setup.close()


def _train_and_write(config: Any, trainer: GuardedTrainer, setup: TrainingSetup, resume: Path | None) -> int:
    if resume is not None:
        checkpoint.check_continuity(resume, trainer.identity, {"train.fsdp": False, **setup.identity_before})
        logger.info("resuming from %s", resume)
    batch, workers = config.train.per_device_train_batch_size, config.train.dataloader_num_workers
    check_shared_memory(setup.dataset, setup.collator, batch, workers, local_world_size())
    prepare_folder(config)
    with float32_trainables(setup.model, needed=config.train.bf16 and config.train.deepspeed is None):
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    if trainer.stopped_by is not None and trainer.state.global_step < trainer.state.max_steps:
        logger.warning(
            "stopped by signal %d at step %d; the same command goes on",
            trainer.stopped_by,
            trainer.state.global_step,
        )
        return 128 + trainer.stopped_by
    write_results(config, trainer, setup.results(trainer))
    return 0


def _newest_checkpoint(train: Any) -> Path | None:
    pickled = train.deepspeed is not None
    return checkpoint.newest(train.output_dir, pickled=pickled, trust=train.trust_checkpoint)


def join_ranks(config: Any) -> None:
    """Make the process group before transformers looks for it: gloo without a GPU, nccl with one."""
    if config.train.deepspeed is None and not config.train.fsdp:
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if config.train.fsdp:
        dist.setup_process_group()
        return
    deepspeed = require("deepspeed", extra="train")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo", verbose=False)


def leave_ranks() -> None:
    """Close the process group; a rank whose peers are gone leaves all the same."""
    if td.is_initialized():
        with contextlib.suppress(RuntimeError, ValueError):
            td.destroy_process_group()


def prepare_folder(config: Any) -> None:
    """Rank 0 writes the first files of a run; every rank must call.

    Args:
        config: The resolved configuration.

    Raises:
        UserError: The folder cannot be written.
    """
    output = Path(config.train.output_dir)

    def write() -> None:
        with told_disk_errors(output):
            checkpoint.prepare_folder(output, config.train.resume)
            save_yaml(config, output / "run.yaml")
            device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
            save_json(output / RUN_FILE, of_run(device, dist.world_size()))

    dist.agree(write)


def build_trainer(stage: Stage, config: Any) -> tuple[GuardedTrainer, TrainingSetup]:
    """The stage's model and data, and the trainer around them.

    Args:
        stage: As for `run_stage`.
        config: The resolved configuration.
    """
    arguments = training_arguments(config)  # first: under ZeRO-3 it decides how weights are loaded
    set_seed(config.train.seed)  # the same new weights on every rank
    setup = stage.build(config)
    trainer = (setup.trainer_class or GuardedTrainer)(
        run_config=config,
        identity=identity_of(stage, config, setup),
        sampler=setup.sampler,
        model=setup.model,
        args=arguments,
        train_dataset=setup.dataset,
        data_collator=setup.collator,
        layers=setup.layers,
        pictures=setup.pictures,
        **setup.trainer_arguments,
    )
    log_sizes(stage.name, setup.model, len(setup.dataset))
    if config.train.bf16 and not torch.cuda.is_available() and not cpu_has_fast_bf16():
        logger.warning("this processor computes bf16 15 to 80 times as slowly as float32; train.bf16=false is faster")
    return trainer, setup


def training_arguments(config: Any):
    """transformers' arguments for the `train` block."""
    train, on_gpu = config.train, torch.cuda.is_available()
    deepspeed = train.deepspeed_config
    # Renamed in transformers 5.2x; the old name warns there.
    names = TrainingArguments.__dataclass_fields__
    recompute = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    how = {"use_reentrant": False, "every_n_layers": train.gradient_checkpointing_every_n_layers}
    return TrainingArguments(
        output_dir=train.output_dir,
        deepspeed=None if deepspeed is None else copy.deepcopy(deepspeed.settings),  # transformers fills in `auto`
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
        **{recompute: train.gradient_checkpointing, f"{recompute}_kwargs": how},
    )


def identity_of(stage: Stage, config: Any, setup: TrainingSetup) -> dict[str, Any]:
    """What a checkpoint must share with the run that goes on from it: what is trained, on what, in which order."""
    names = [name for name, parameter in setup.model.named_parameters() if parameter.requires_grad]
    train = to_dict(config.train)
    return {
        "stage": stage.name,
        "world_size": dist.world_size(),
        "zero_stage": None if config.train.deepspeed_config is None else config.train.deepspeed_config.zero_stage,
        **setup.identity,
        **{f"train.{key}": train[key] for key in _KEPT},
        "trainables": hashlib.sha256("\n".join(names).encode()).hexdigest()[:16],
    }


def log_sizes(stage: str, model: torch.nn.Module, num_samples: int) -> None:
    """One line on what is trained."""
    sizes = [(numel(parameter), parameter.requires_grad) for parameter in model.parameters()]
    trained, total = sum(n for n, on in sizes if on), sum(n for n, _ in sizes)
    logger.info("%s: %d samples, %s of %s parameters trained", stage, num_samples, f"{trained:,}", f"{total:,}")


def write_results(config: Any, trainer: GuardedTrainer, write: Callable[[Path], None]) -> None:
    """Let the stage write beside `output_dir`'s entries and move them to their places at the end; every rank must call.

    Args:
        config: The resolved configuration.
        trainer: At its end.
        write: From `TrainingSetup.results`.
    """
    output = Path(config.train.output_dir)
    try:
        if dist.is_main():
            writing = output / ".writing-results"
            shutil.rmtree(writing, ignore_errors=True)
            writing.mkdir()
            write(writing)
            move_into(writing, output)
            with atomic_file(output / "trainer_state.json") as path:
                trainer.state.save_to_json(str(path))
            checkpoint.rotate(output, config.train.save_total_limit)  # a kill may have come before the last one's turn
            logger.info("written: %s", output)
    except Exception as error:
        reason = disk_reason(error)
        if reason is None:
            raise
        raise CheckpointError(f"{output}: results could not be written: {reason}") from error
    dist.barrier()


def move_into(source: Path, target: Path) -> None:
    """Move a folder's entries into another, weights last: whoever sees them finds the rest there too."""
    weights = ".safetensors"
    for entry in sorted(source.iterdir(), key=lambda path: (path.name.endswith(weights), path.name)):
        destination = target / entry.name
        retired = destination.with_name(f".removing-{destination.name}")  # the next start clears what a kill leaves
        if entry.is_dir() and destination.exists():
            os.replace(destination, retired)
        os.replace(entry, destination)
        shutil.rmtree(retired, ignore_errors=True)
    source.rmdir()
