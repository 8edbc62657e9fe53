"""Batches of DataLoader workers wait in shared memory: too little of it would hang a run, so it is compared before."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..config import ConfigError

SHARED = Path("/dev/shm")
_PREFETCHED = 2
"""Batches that a DataLoader lets each worker make ahead."""


def check_shared_memory(
    dataset: Any, collator: Any, batch_size: int, workers: int, ranks: int, folder: Path = SHARED
) -> None:
    """Compare what the workers of all ranks of this machine will hold with what there is.

    Args:
        dataset: Its first sample stands for all.
        collator: Makes a batch of samples.
        batch_size: Samples of a batch.
        workers: Of each rank; without any nothing is shared.
        ranks: On this machine.
        folder: Where shared memory is; not looked at where it does not exist.

    Raises:
        ConfigError: There is too little.
    """
    if not workers or not folder.is_dir():
        return
    one = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(collator([dataset[0]])))
    about = os.statvfs(folder)
    needed, free = one * batch_size * _PREFETCHED * workers * ranks, about.f_bavail * about.f_frsize
    if needed > free:
        raise ConfigError(
            f"`train.dataloader_num_workers`: {workers} workers in each of {ranks} ranks hold up to "
            f"{needed / 2**20:.0f} MiB of batches in {folder}, where {free / 2**20:.0f} MiB are free; start the "
            f"container with --shm-size={needed // 2**30 + 1}g, or take fewer workers (0 needs none)"
        )


def _tensors(batch: Any) -> Iterable[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _tensors(value)
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from _tensors(value)
