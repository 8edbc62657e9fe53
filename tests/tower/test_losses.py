"""The balance loss by hand, and the same on one and on two ranks."""

import socket

import pytest
import torch
import torch.distributed as td
import torch.multiprocessing as mp

from helpers.host_waits import HostWaits
from tove_lvlm.tower.losses import balance_loss, cv_squared


def test_by_hand():
    # Two images of two tokens. Image means: (.6, .4) and (.9, .1); mass (.75, .25); mean .5, variance .0625.
    gate = torch.tensor([[[0.8, 0.2], [0.4, 0.6]], [[1.0, 0.0], [0.8, 0.2]]])
    loss = balance_loss(gate, torch.ones(2), [True, True], collective=False)
    assert loss.item() == pytest.approx(0.0625 / 0.25, abs=1e-6)


def test_even_gate_costs_nothing_and_one_sided_gate_costs_k_minus_1():
    even = torch.full((1, 3, 4), 0.25)
    assert balance_loss(even, torch.ones(1), [True] * 4, collective=False).item() == pytest.approx(0, abs=1e-9)
    one = torch.tensor([1.0, 0, 0, 0]).expand(1, 3, 4)
    assert balance_loss(one, torch.ones(1), [True] * 4, collective=False).item() == pytest.approx(3, abs=1e-6)


def test_a_dummy_image_has_no_weight():
    gate = torch.tensor([[[0.75, 0.25]], [[0.0, 1.0]]])
    loss = balance_loss(gate, torch.tensor([True, False]), [True, True], collective=False)
    assert loss.item() == pytest.approx(0.25, abs=1e-6)


def test_only_dummies_cost_nothing_and_keep_the_graph():
    logits = torch.randn(2, 3, 2, requires_grad=True)
    loss = balance_loss(logits.softmax(-1), torch.zeros(2), [True, True], collective=False)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_detached_experts_are_left_out():
    gate = torch.tensor([[[0.75, 0.0, 0.25]]])
    assert balance_loss(gate, torch.ones(1), [True, False, True], collective=False).item() == pytest.approx(0.25)
    assert balance_loss(gate, torch.ones(1), [True, False, False], collective=False).item() == 0
    assert balance_loss(gate, torch.ones(1), [False] * 3, collective=False).item() == 0


def test_gradient_pushes_towards_even():
    logits = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    balance_loss(logits.softmax(-1), torch.ones(1), [True, True], collective=False).backward()
    assert logits.grad[0, 0, 0] > 0 > logits.grad[0, 0, 1]


def test_cv_squared_does_not_depend_on_scale():
    mass = torch.tensor([1.0, 2.0, 5.0])
    assert cv_squared(mass).item() == pytest.approx(cv_squared(mass * 100).item(), rel=1e-5)
    assert cv_squared(mass).item() == pytest.approx(((5 / 3) ** 2 + (2 / 3) ** 2 + (7 / 3) ** 2) / 3 / (8 / 3) ** 2)


# Five images: rank 0 has two and a dummy, rank 1 has three, so a mean of the ranks' means would be wrong.
LOGITS = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0)).double() * 2
WEIGHT = torch.tensor([1.0, 1, 0, 1, 1, 1]).double()


def loss_and_gradient(logits: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """With one parameter per logit column, as a gate's bias would be: its gradient is what ranks average."""
    bias = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    loss = balance_loss((logits + bias).softmax(-1), weight, [True] * 3, collective=True)
    loss.backward()
    return loss.detach(), bias.grad


def worker(rank: int, port: int, results) -> None:
    td.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    mine = slice(0, 3) if rank == 0 else slice(3, 6)
    loss, gradient = loss_and_gradient(LOGITS[mine], WEIGHT[mine])
    td.all_reduce(gradient)  # what DDP and ZeRO do: sum over ranks, divided by their number
    results.put((rank, loss.item(), (gradient / 2).tolist()))
    td.barrier()
    td.destroy_process_group()


def test_value_and_gradient_are_the_same_on_one_and_on_two_ranks():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    mp.spawn(worker, args=(port, results), nprocs=2)
    alone, gradient = loss_and_gradient(LOGITS, WEIGHT)
    assert alone.item() > 0.01
    for _ in range(2):
        _, loss, averaged = results.get()
        assert loss == pytest.approx(alone.item(), abs=1e-12)
        torch.testing.assert_close(torch.tensor(averaged, dtype=torch.float64), gradient, atol=1e-12, rtol=0)


@pytest.fixture
def two_ranks_alone():
    """A process group of two whose collectives do nothing, in this process."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    td.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        td.all_reduce(torch.ones(1, device="meta"))
        yield
    except NotImplementedError:
        pytest.skip("this torch has no collectives of the meta device")
    finally:
        td.destroy_process_group()


@pytest.mark.parametrize("attached", [[True] * 3, [True, False, True]])
def test_the_host_waits_for_nothing(two_ranks_alone, monkeypatch, attached):
    """On the meta device no value can be read. The ranks' sum is one collective of K + 1 numbers, where they lie."""
    inner, reduced = td.all_reduce, []
    monkeypatch.setattr(td, "all_reduce", lambda tensor, **how: reduced.append((tensor, how)) or inner(tensor, **how))
    logits = torch.randn(2, 4, 3, device="meta", requires_grad=True)
    with HostWaits() as waits:
        balance_loss(logits.softmax(-1), torch.ones(2, device="meta"), attached, collective=True).backward()
    assert not waits.found
    ((tensor, how),) = reduced
    assert (tensor.device.type, tuple(tensor.shape), how) == ("meta", (sum(attached) + 1,), {})
    assert logits.grad is not None


def test_what_would_wait_is_seen():
    with HostWaits() as waits:
        x = torch.ones(2, 3)
        x[:, [0, 2]]
    assert waits.found == {("not ours", "a constant is sent")}
    with HostWaits() as waits:
        assert f"{x.sum()}" == "6.0"
    assert waits.found == {("not ours", "a value is read")}
