"""LAVIS's training loop on one process and on a machine without a GPU.

The wheel's loop takes a process group and a CUDA device for granted: a run that is not distributed stops at
`dist.barrier()`, and on the CPU the prefetcher, the evaluation and the meters ask for a CUDA stream or tensor. What is
replaced here is put back when the run is over.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist


@contextlib.contextmanager
def one_process() -> Iterator[None]:
    """A process group of one where no launcher has announced ranks."""
    if dist.is_initialized() or "RANK" in os.environ:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def device(kind: str) -> Iterator[None]:
    """LAVIS's loop on `cpu` or `cuda`; on `cuda` it is left as it is."""
    if kind != "cpu":
        yield
        return
    from lavis.common.logger import SmoothedValue
    from lavis.datasets import data_utils
    from lavis.runners import runner_base

    replaced = (
        (runner_base, "PrefetchLoader", _as_it_is),
        (data_utils, "move_to_cuda", _as_it_is),
        (SmoothedValue, "synchronize_between_processes", lambda self: None),  # there is one rank
    )
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    try:
        for owner, name, value in replaced:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in originals:
            setattr(owner, name, value)


def _as_it_is(value: Any) -> Any:
    return value
