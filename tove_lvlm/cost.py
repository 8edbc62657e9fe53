"""What a network costs: parameters, counted FLOPs, memory, measured time. Of a whole tower: tower/cost.py.

Counting runs on the meta device as well as on a real one: nothing is allocated and no weight is needed there.

Shapes: B images, 3 H W pixels.
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count

from .errors import UserError

BATCH_SIZE = 8
"""Images of a timed forward where nothing else is said."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is known of a network without running it for real."""

    parameters: int
    gflops: float
    """10^9 floating point operations per image, a multiplication and an addition counted as two."""
    bf16_bytes: int
    """Memory of parameters and buffers, the floating point ones in bfloat16."""
    float32_bytes: int
    """Size of a file with all that a checkpoint keeps, in float32; some libraries publish half of that."""


# ---- counted ----


def flop_counter() -> FlopCounterMode:
    """torch's counter, with attention on the CPU, which torch's own table has left out until lately."""
    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    formula = {} if on_cpu in flop_registry else {on_cpu: _attention_flops}
    return FlopCounterMode(display=False, custom_mapping=formula)


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *args: Any, **kwargs: Any) -> int:
    return cast(int, sdpa_flop_count(query, key, value))


def count(module: nn.Module) -> tuple[int, int]:
    """(trainable, frozen) parameters of a module, shared ones once."""
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return trainable, sum(p.numel() for p in module.parameters()) - trainable


@torch.no_grad()
def size_of(module: nn.Module, pixels_B3HW: torch.Tensor) -> Size:
    """Size and FLOPs of a network, by one forward.

    Args:
        module: Where and in the dtype that the pixels are.
        pixels_B3HW: Any number of images; the FLOPs are those of one.
    """
    with eval_mode(module), flop_counter() as counter:
        module(pixels_B3HW)
    return weights_size(module, counter.get_total_flops() / len(pixels_B3HW))


def weights_size(module: nn.Module, flops: float) -> Size:
    """Size of a network's weights, with FLOPs per image that are known already."""
    tensors = [*module.parameters(), *module.buffers()]
    return Size(
        parameters=sum(count(module)),
        gflops=flops / 1e9,
        bf16_bytes=sum(_bytes(tensor, floats=2) for tensor in tensors),
        float32_bytes=sum(_bytes(tensor, floats=4) for tensor in module.state_dict().values()),
    )


def _bytes(tensor: torch.Tensor, floats: int) -> int:
    return tensor.numel() * (floats if tensor.is_floating_point() else tensor.element_size())


# ---- measured ----


@torch.inference_mode()
def ms_per_image(module: nn.Module, pixels_B3HW: torch.Tensor, repeats: int = 5) -> float:
    """Milliseconds per image of a network's forward: median over the repeats, after one to warm up.

    Args:
        module: Where and in the dtype that the pixels are.
        pixels_B3HW: The batch.
        repeats: Timed forwards.

    Raises:
        UserError: A number below 1.
    """
    check_numbers(len(pixels_B3HW), repeats)
    clock, elapsed = clock_of(pixels_B3HW.device), []
    with eval_mode(module):
        module(pixels_B3HW)
        for _ in range(repeats):
            start = clock()
            module(pixels_B3HW)
            elapsed.append(clock() - start)
    return statistics.median(elapsed) / len(pixels_B3HW)


def check_numbers(batch_size: int, repeats: int) -> None:
    """Raise UserError for a number below 1."""
    if batch_size < 1 or repeats < 1:
        raise UserError(f"batch_size is {batch_size} and repeats is {repeats}; both must be at least 1")


# ---- how it is measured ----


def clock_of(device: torch.device) -> Callable[[], float]:
    """A clock in milliseconds that is read once all that was asked of the device is done."""

    def read() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() * 1e3

    return read


@contextlib.contextmanager
def totals_by_module(modules: Iterable[nn.Module], read: Callable[[], float]) -> Iterator[dict[nn.Module, float]]:
    """How far a running total (FLOPs, a clock) moves on during the forwards of each module.

    Args:
        modules: What to watch; a module may hold another.
        read: Gives the running total.

    Yields:
        Module -> sum over its forwards so far; 0 for one that was not called.
    """
    sums: dict[nn.Module, float] = dict.fromkeys(modules, 0)
    handles = []
    for module in sums:
        handles.append(module.register_forward_pre_hook(lambda m, _: sums.update({m: sums[m] - read()})))
        handles.append(module.register_forward_hook(lambda m, *_: sums.update({m: sums[m] + read()})))
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Everything in eval mode; afterwards each module is as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
