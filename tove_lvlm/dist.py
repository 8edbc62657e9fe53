"""The few things the code asks of torch.distributed, each meaningful on one process too. Our choice."""

import os

import torch
import torch.distributed as td


def _ready() -> bool:
    return td.is_available() and td.is_initialized()


def rank() -> int:
    """Index of this process among all; from the launcher's environment before the group exists."""
    return td.get_rank() if _ready() else int(os.environ.get("RANK", 0))


def world_size() -> int:
    """Number of processes; from the launcher's environment before the group exists."""
    return td.get_world_size() if _ready() else int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Whether this is rank 0, the one that writes and speaks."""
    return rank() == 0


def barrier() -> None:
    """Wait for all ranks."""
    if _ready():
        td.barrier()


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Sum over ranks as a new tensor without gradient; a detached copy when there is one process.

    Args:
        tensor: Any shape, the same on every rank.
    """
    total = tensor.detach().clone()
    if _ready() and td.get_world_size() > 1:
        td.all_reduce(total)
    return total


def setup_process_group() -> None:
    """Join the process group that the launcher's environment describes: nccl with CUDA, gloo without. Idempotent."""
    if _ready() or "RANK" not in os.environ:
        return
    td.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
