"""What rank 0 decides, every rank has; what it raises, no rank waits for."""

import contextlib
import socket

import pytest
import torch.distributed as td
import torch.multiprocessing as mp

from tove_lvlm import dist
from tove_lvlm.config import UserError


def seen(rank: int, port: int, queue) -> None:
    td.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    entered = []

    @contextlib.contextmanager
    def context():
        entered.append(rank)
        yield

    def outcome(make) -> str:
        try:
            return str(dist.agree(make))
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    def fail(error):
        raise error

    with dist.entered_by_main(context()):
        pass
    makes = (lambda: f"by rank {rank}", lambda: fail(UserError("wrong")), lambda: fail(OSError("disk")))
    rows = [outcome(make) for make in makes]
    queue.put((rank, rows, entered))
    td.barrier()
    td.destroy_process_group()


def test_on_two_ranks():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    queue = mp.get_context("spawn").SimpleQueue()
    mp.spawn(seen, args=(port, queue), nprocs=2)
    first, second = sorted(queue.get() for _ in range(2))
    assert first == (0, ["by rank 0", "UserError: wrong", "OSError: disk"], [0])
    assert second == (1, ["by rank 0", "UserError: wrong", "UserError: disk"], [])


def test_on_one():
    assert dist.agree(lambda: 3) == 3
    with pytest.raises(OSError, match="disk"):
        dist.agree(lambda: (_ for _ in ()).throw(OSError("disk")))
