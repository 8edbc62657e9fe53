"""The few things the code asks of torch.distributed, each meaningful on one process too."""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as td

from .errors import UserError


def _ready() -> bool:
    return td.is_available() and td.is_initialized()


def rank() -> int:
    """Index of this process among all; from the launcher's environment before the group exists."""
    return td.get_rank() if _ready() else int(os.environ.get("RANK", 0))


def world_size() -> int:
    """Number of processes; from the launcher's environment before the group exists."""
    return td.get_world_size() if _ready() else int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Whether this is rank 0, the one that writes files and logs."""
    return rank() == 0


def barrier() -> None:
    """Wait for all ranks."""
    if _ready():
        td.barrier()


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Sum over ranks as a new tensor without gradient; a detached copy when there is one process.

    With NCCL the host goes on at once: the sum is queued, and what reads it waits on the device. Gloo, which is taken
    without CUDA, has it when this returns.

    Args:
        tensor: Any shape, the same on every rank.
    """
    total = tensor.detach().clone()
    if _ready() and td.get_world_size() > 1:
        td.all_reduce(total)
    return total


def all_gather(value: Any) -> list[Any]:
    """What every rank gave, in order of rank, on every rank.

    Args:
        value: Small and picklable.
    """
    if not _ready() or td.get_world_size() == 1:
        return [value]
    values = [None] * td.get_world_size()
    td.all_gather_object(values, value)
    return values


def agree(make: Callable[[], Any]) -> Any:
    """What rank 0 makes, on every rank; every rank must call.

    Args:
        make: Called on rank 0 only; its result is small and picklable.

    Raises:
        UserError: What rank 0 raised, on every other rank, so that none waits for one that has gone.
        Exception: The same on rank 0.
    """
    mine: tuple[Any, str | None] = (None, None)
    raised: Exception | None = None
    if is_main():
        try:
            mine = (make(), None)
        except Exception as error:
            raised, mine = error, (None, str(error))
    made, message = all_gather(mine)[0]
    if raised is not None:
        raise raised
    if message is not None:
        raise UserError(message)
    return made


@contextlib.contextmanager
def entered_by_main(context: AbstractContextManager[Any]) -> Iterator[None]:
    """A context that rank 0 enters and leaves, such as a lock; every rank must call.

    Args:
        context: Not entered on the other ranks.

    Raises:
        UserError: As `agree`, of the entering.
    """
    with contextlib.ExitStack() as stack:
        agree(lambda: stack.enter_context(context) and None)
        yield


def setup_process_group(backend: str | None = None) -> None:
    """Join the process group that the launcher's environment describes. Idempotent.

    Args:
        backend: None takes nccl with CUDA, gloo without.
    """
    if _ready() or "RANK" not in os.environ:
        return
    td.init_process_group(backend or ("nccl" if torch.cuda.is_available() else "gloo"))
