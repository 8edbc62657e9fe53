"""What a vision tower costs, part by part: measured time, counted FLOPs, size. Our choice.

Shapes: B images, 3 H W pixels.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..config import UserError
from ..lvlm.budget import moved, tower_parts
from .probe import evaluating


@dataclass(frozen=True)
class Cost:
    """Cost of one part. Resizing pixels for experts belongs to the whole tower only."""

    ms: float
    """Milliseconds per image: median over the repeats, divided by the batch size."""
    gflops: float
    """10^9 floating point operations per image, a multiplication and an addition counted as two."""
    parameters: int
    memory_bytes: int
    """Of the weights, as they lie in memory: parameters and buffers."""


@torch.no_grad()
def measure_cost(tower: nn.Module, batch_size: int = 8, repeats: int = 5) -> dict[str, Cost]:
    """Cost of every part that is run, where the tower is and in its dtype.

    The parts are timed with the device synchronised at their borders, the whole tower without: on a GPU the whole may
    take less than its parts together.

    Args:
        tower: A `ToVEVisionModel`, or a plain CLIP.
        batch_size: Images of a forward.
        repeats: Forwards after one to warm up.

    Returns:
        `clip`, each attached expert by its name, `tove_fusion` (these two not for a plain CLIP), and `tower`.

    Raises:
        UserError: A number below 1.
    """
    if batch_size < 1 or repeats < 1:
        raise UserError(f"batch_size is {batch_size} and repeats is {repeats}; both must be at least 1")
    parts = {name.removeprefix("expert "): module for name, module in tower_parts(tower)}
    like = next(tower.parameters())
    size = tower.config.image_size
    pixels_B3HW = torch.randn(batch_size, 3, size, size, generator=torch.Generator().manual_seed(0)).to(like)
    clock = clock_of(like.device)
    # A plain CLIP is its own only part; a dictionary by module would lose one of the two.
    took_parts: dict[str, list[float]] = {name: [] for name in parts}
    took_whole = []
    with evaluating(tower):
        tower(pixels_B3HW)
        for _ in range(repeats):
            with moved(parts.values(), clock) as took:
                tower(pixels_B3HW)
            for name, module in parts.items():
                took_parts[name].append(took[module])
            start = clock()
            tower(pixels_B3HW)
            took_whole.append(clock() - start)
        with FlopCounterMode(display=False) as counter, moved(parts.values(), counter.get_total_flops) as flops:
            tower(pixels_B3HW[:1])
    costs = {
        name: _cost(module, statistics.median(took_parts[name]) / batch_size, flops[module])
        for name, module in parts.items()
    }
    return costs | {"tower": _cost(tower, statistics.median(took_whole) / batch_size, counter.get_total_flops())}


def _cost(module: nn.Module, ms: float, flops: float) -> Cost:
    tensors = [*module.parameters(), *module.buffers()]
    return Cost(
        ms=ms,
        gflops=flops / 1e9,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        memory_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
    )


def clock_of(device: torch.device) -> Callable[[], float]:
    """A clock in milliseconds that is read once all that was asked of the device is done."""

    def read() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() * 1e3

    return read
