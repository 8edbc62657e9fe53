"""Complete, atomic checkpoints and resuming from them.

`checkpoint-N/` holds every trainable (`trainable.safetensors`, whole and portable), the optimizer (DeepSpeed's shards,
`optimizer.pt`, or under FSDP2 `optimizer-rank-R.pt` of each rank), the scheduler, each rank's random states and running
sums, transformers' trainer state, the resolved configuration, and last of all `complete.json`, which lists every file
with its size and SHA-256 and is signed (`manifest`, `signature`). All ranks write into a hidden folder, which is
flushed to the disk and renamed: a folder called `checkpoint-N` is whole, and one that somehow is not (a copy cut short,
a bad disk) is passed over. The sampler's position is the step, since the order depends on seed and epoch alone.

See docs/design.md, "Training".
"""

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerState

from .. import dist
from ..config import ConfigError, save_yaml
from ..sharding import collect_trainable, copy_into
from ..storage import clear_leftovers, load_tensors, save_tensors, sync_to_disk
from .fsdp import load_local_state, local_state
from .guards import TrainingStopped
from .manifest import FORMAT, IDENTITY, TRAINABLE, CheckpointError, damage, rank_file, read_meta, write_manifest
from .signature import is_ours, key_file

logger = logging.getLogger(__name__)

ENGINE_TAG = "deepspeed"
_NAME = re.compile(r"checkpoint-(\d+)")
_TEMPORARY = ".writing-"
_TRASH = ".removing-"


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What of a prepared run a checkpoint holds and gives back."""

    model: torch.nn.Module
    engine: Any | None
    """DeepSpeed's, which keeps the optimizer in shards; None with torch alone."""
    fsdp: bool = False
    """Whether FSDP2 holds the model and the optimizer's state in pieces."""
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a checkpoint says besides: where the run stood, and which run it was."""

    trainer_state: TrainerState
    rank_state: dict[str, Any]
    """This rank's random states and running sums."""
    config: Any
    """The resolved configuration."""
    identity: dict[str, Any]
    """What a run that goes on from here must share."""


def _numbered(output_dir: str | Path) -> list[Path]:
    root = Path(output_dir)
    found = [(_NAME.fullmatch(path.name), path) for path in (root.iterdir() if root.is_dir() else ()) if path.is_dir()]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def checkpoints(output_dir: str | Path) -> list[Path]:
    """Complete checkpoints by their files' sizes, oldest first."""
    return [path for path in _numbered(output_dir) if damage(path) is None]


def newest(output_dir: str | Path, *, pickled: bool, trust: bool) -> Path | None:
    """The checkpoint to go on from: the newest whose files are all as they were written; damaged ones are named in a
    warning and left alone.

    Args:
        output_dir: The run's folder.
        pickled: DeepSpeed will unpickle its part.
        trust: `train.trust_checkpoint`.

    Raises:
        ConfigError: There are checkpoints, and all are damaged; or the newest whole one is not signed by this user and
            would be unpickled.
    """
    damaged: list[str] = []
    for folder in reversed(_numbered(output_dir)):
        if (wrong := damage(folder, checksums=True)) is not None:
            logger.warning("%s is damaged and is passed over: %s", folder, wrong)
            damaged.append(f"{folder.name}: {wrong}")
            continue
        if pickled and not trust and not is_ours(read_meta(folder)):
            raise ConfigError(
                f"{folder} is not signed with your key ({key_file()}), so somebody else may have written it, and "
                "DeepSpeed unpickles its files, which can run code; if you know where it comes from, give "
                "train.trust_checkpoint=true"
            )
        return folder
    if damaged:
        raise ConfigError(
            f"{output_dir}: all {len(damaged)} checkpoints are damaged ({damaged[0]}); train.resume=false moves them "
            "aside and starts over"
        )
    return None


def prepare_folder(output_dir: str | Path, resume: bool) -> None:
    """Clear what a killed run left half done. Rank 0 only, when nothing can refuse the run any more.

    Args:
        output_dir: The run's folder; made when absent.
        resume: Leave the checkpoints where they are; else they move into a `superseded-K` folder.
    """
    root = Path(output_dir)
    root.mkdir(parents=True, exist_ok=True)
    clear_leftovers(root)
    for path in root.iterdir():
        if path.is_dir() and path.name.startswith((_TEMPORARY, _TRASH)):
            shutil.rmtree(path, ignore_errors=True)
    if resume:
        return
    old = [path for path in root.iterdir() if _NAME.fullmatch(path.name)]
    if old:
        number = 1
        while (root / f"superseded-{number}").exists():
            number += 1
        (root / f"superseded-{number}").mkdir()
        for path in old:
            path.rename(root / f"superseded-{number}" / path.name)
        logger.warning("train.resume is false: %d checkpoint(s) moved to superseded-%d", len(old), number)


def save(state: TrainingState, record: RunRecord, output_dir: str | Path, limit: int | None) -> Path:
    """Write `checkpoint-N` for the present step; every rank must call.

    Args:
        state: What is trained.
        record: Gives the step.
        output_dir: The run's folder.
        limit: How many of the newest checkpoints to keep; none keeps all.

    Raises:
        CheckpointError: The disk is full or refuses; earlier checkpoints are as they were.
    """
    step = record.trainer_state.global_step
    root, final = Path(output_dir), Path(output_dir) / f"checkpoint-{step}"
    writing = root / f"{_TEMPORARY}{final.name}"
    try:
        if dist.is_main():
            shutil.rmtree(writing, ignore_errors=True)
            writing.mkdir(parents=True)
        dist.barrier()
        _write(state, record, writing)
        dist.barrier()
        if dist.is_main():
            _finish(writing, final, step)
            rotate(root, limit)
        dist.barrier()
    except (OSError, RuntimeError, SafetensorError) as error:  # torch says RuntimeError of a full disk
        if isinstance(error, TrainingStopped):
            raise
        if dist.world_size() == 1:  # other ranks may still be writing there; prepare_folder clears it later
            shutil.rmtree(writing, ignore_errors=True)
        complete = checkpoints(root)
        last = f"the last good one is {complete[-1]}" if complete else "there is none yet"
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"checkpoint at step {step} could not be written: {reason}; {last}") from error
    return final


def load(state: TrainingState, folder: str | Path) -> None:
    """Put weights, optimizer and scheduler of a checkpoint into a prepared run; every rank must call.

    Raises:
        CheckpointError: The files do not fit the model.
    """
    folder = Path(folder)
    if state.engine is not None:
        loaded, _ = state.engine.load_checkpoint(
            str(folder),
            tag=ENGINE_TAG,
            load_module_strict=False,
            load_optimizer_states=True,
            load_lr_scheduler_states=False,
        )
        if loaded is None:
            raise CheckpointError(f"{folder}: DeepSpeed could not load its part")
    else:
        _load_plain(state, folder)
    scheduler = torch.load(folder / "scheduler.pt", weights_only=True)
    state.scheduler.load_state_dict(scheduler)
    if isinstance(state.scheduler, LambdaLR):
        _set_rates(state.scheduler)


def _set_rates(scheduler: LambdaLR) -> None:
    """The rates that this run's schedule has here; those of a finished run that was made longer are zero at its end."""
    rates = [rate * at(scheduler.last_epoch) for rate, at in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates


def load_rank_state(folder: str | Path) -> dict[str, Any]:
    """This rank's random states and running sums."""
    return torch.load(Path(folder) / rank_file(dist.rank()), weights_only=True)


def check_continuity(folder: str | Path, identity: dict[str, Any], before: Mapping[str, Any] | None = None) -> None:
    """Refuse to go on from a checkpoint of another run.

    Args:
        folder: The checkpoint.
        identity: What `identity_of` gives for the present run.
        before: Values of keys that the checkpoint may be too old to have.

    Raises:
        ConfigError: Format, stage, ranks, model, data order or trainables differ; the key is named.
    """
    meta = read_meta(folder)
    hint = "give the old value, another train.output_dir, or train.resume=false"
    if meta.get("format") != FORMAT:
        raise ConfigError(f"{folder} has checkpoint format {meta.get('format')}, this version reads {FORMAT}; {hint}")
    then = {**(before or {}), **meta["identity"]}
    for key, value in identity.items():
        if then.get(key) != value:
            raise ConfigError(f"cannot resume from {folder}: `{key}` was {then.get(key)}, is {value}; {hint}")


def rotate(root: Path, limit: int | None) -> None:
    """Remove the oldest complete checkpoints beyond `limit`; renamed first, so that none is ever half there."""
    for path in checkpoints(root)[:-limit] if limit else ():
        trash = path.with_name(f"{_TRASH}{path.name}")
        path.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


def _write(state: TrainingState, record: RunRecord, folder: Path) -> None:
    trainable = collect_trainable(state.model)
    if state.engine is not None:
        state.engine.save_checkpoint(str(folder), tag=ENGINE_TAG, save_latest=False, exclude_frozen_parameters=True)
    elif state.fsdp:
        torch.save(local_state(state.optimizer), folder / _optimizer_file(dist.rank()))
    elif dist.is_main():
        torch.save(state.optimizer.state_dict(), folder / "optimizer.pt")
    torch.save(record.rank_state, folder / rank_file(dist.rank()))
    if dist.is_main():
        save_tensors(folder / TRAINABLE, trainable)
        torch.save(state.scheduler.state_dict(), folder / "scheduler.pt")
        record.trainer_state.save_to_json(str(folder / "trainer_state.json"))
        save_yaml(record.config, folder / "run.yaml")
        (folder / IDENTITY).write_text(json.dumps(record.identity), encoding="utf-8")


def _finish(writing: Path, final: Path, step: int) -> None:
    """Flush, list, flush the list, rename, flush the parent: after a power cut the folder is whole or not there."""
    files = sorted(path for path in writing.rglob("*") if path.is_file())
    for path in files:
        sync_to_disk(path)
    write_manifest(writing, files, step)
    for folder in {path.parent for path in files} | {writing}:
        sync_to_disk(folder)
    if final.exists():  # the same step written again (stopped right after a save): put the old one out of the way
        trash = final.with_name(f"{_TRASH}{final.name}")
        final.rename(trash)
        writing.rename(final)
        shutil.rmtree(trash, ignore_errors=True)
    else:
        writing.rename(final)
    sync_to_disk(final.parent)


def _load_plain(state: TrainingState, folder: Path) -> None:
    tensors = load_tensors(folder / TRAINABLE)
    trainables = {name: p for name, p in state.model.named_parameters() if p.requires_grad}
    if trainables.keys() != tensors.keys():
        raise CheckpointError(
            f"{folder}: its trainables are not this run's: {sorted(trainables.keys() ^ tensors.keys())[:3]}"
        )
    for name, parameter in trainables.items():
        copy_into(parameter, tensors[name])
    if state.fsdp:
        load_local_state(state.optimizer, torch.load(folder / _optimizer_file(dist.rank()), weights_only=True))
    else:
        state.optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))


def _optimizer_file(rank: int) -> str:
    return f"optimizer-rank-{rank}.pt"
