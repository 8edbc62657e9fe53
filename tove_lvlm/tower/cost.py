"""What a tower costs, part by part: counted sizes and FLOPs, measured time.

Shapes: B images, 3 H W pixels.
"""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from ..cost import (
    BATCH_SIZE,
    Size,
    check_numbers,
    clock_of,
    count,
    eval_mode,
    flop_counter,
    totals_by_module,
    weights_size,
)
from .modeling import ToVEVisionModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Cost:
    """Measured cost of one part of a tower. Resizing pixels for experts belongs to the whole tower only."""

    ms: float
    """Milliseconds per image: median over the repeats, divided by the batch size."""
    gflops: float
    """10^9 floating point operations per image, a multiplication and an addition counted as two."""
    parameters: int
    memory_bytes: int
    """Of the weights, as they lie in memory: parameters and buffers."""


def tower_sizes(tower: nn.Module) -> dict[str, Size]:
    """Sizes of every part of a tower that is run, on whatever device it is.

    Args:
        tower: A `ToVEVisionModel`, or a plain CLIP.

    Returns:
        `clip`, each attached expert by its name, `tove_fusion` (these two not for a plain CLIP), and `tower`.
    """
    parts = _parts_by_name(tower)
    flops, total = _part_flops(tower, parts.values(), _pixels(tower, 1))
    sizes = {name: weights_size(module, flops[module]) for name, module in parts.items()}
    return sizes | {"tower": weights_size(tower, total)}


def tower_parts(tower: nn.Module) -> list[tuple[str, nn.Module]]:
    """`clip`, `expert NAME` of each attached expert and `tove_fusion`; of a plain CLIP, `clip` alone."""
    if not hasattr(tower, "tove_fusion"):
        return [("clip", tower)]
    model = cast(ToVEVisionModel, tower)
    experts = [(f"expert {name}", expert) for name, expert in model.experts.items()]
    return [("clip", model.clip), *experts, ("tove_fusion", model.tove_fusion)]


def _parts_by_name(tower: nn.Module) -> dict[str, nn.Module]:
    return {name.removeprefix("expert "): module for name, module in tower_parts(tower)}


def _pixels(tower: nn.Module, batch_size: int) -> torch.Tensor:
    size, like = cast("PreTrainedModel", tower).config.image_size, next(tower.parameters())
    if like.is_meta:
        return torch.zeros(batch_size, 3, size, size, dtype=like.dtype, device="meta")
    return torch.randn(batch_size, 3, size, size, generator=torch.Generator().manual_seed(0)).to(like)


@torch.no_grad()
def _part_flops(
    tower: nn.Module, parts: Iterable[nn.Module], pixels_B3HW: torch.Tensor
) -> tuple[dict[nn.Module, float], float]:
    # FlopCounterMode names modules by class path; reading its running total around each part is exact and simpler.
    with (
        eval_mode(tower),
        flop_counter() as counter,
        totals_by_module(parts, counter.get_total_flops) as flops,
    ):
        tower(pixels_B3HW)
    return flops, counter.get_total_flops()


@torch.no_grad()
def measure_cost(tower: nn.Module, batch_size: int = BATCH_SIZE, repeats: int = 5) -> dict[str, Cost]:
    """Cost of every part that is run, where the tower is and in its dtype.

    The parts are timed with the device synchronised at their borders, the whole tower without: on a GPU the whole may
    take less than its parts together.

    Args:
        tower: A `ToVEVisionModel`, or a plain CLIP.
        batch_size: Images of a forward.
        repeats: Forwards after one to warm up.

    Returns:
        As `tower_sizes`.

    Raises:
        UserError: A number below 1.
    """
    check_numbers(batch_size, repeats)
    parts, pixels_B3HW = _parts_by_name(tower), _pixels(tower, batch_size)
    clock = clock_of(pixels_B3HW.device)
    # A plain CLIP is its own only part; a dictionary by module would lose one of the two.
    elapsed_by_part: dict[str, list[float]] = {name: [] for name in parts}
    elapsed_total = []
    with eval_mode(tower):
        tower(pixels_B3HW)
        for _ in range(repeats):
            with totals_by_module(parts.values(), clock) as elapsed:
                tower(pixels_B3HW)
            for name, module in parts.items():
                elapsed_by_part[name].append(elapsed[module])
            start = clock()
            tower(pixels_B3HW)
            elapsed_total.append(clock() - start)
    flops, total = _part_flops(tower, parts.values(), pixels_B3HW[:1])
    costs = {
        name: _cost(module, statistics.median(elapsed_by_part[name]) / batch_size, flops[module])
        for name, module in parts.items()
    }
    return costs | {"tower": _cost(tower, statistics.median(elapsed_total) / batch_size, total)}


def _cost(module: nn.Module, ms: float, flops: float) -> Cost:
    tensors = [*module.parameters(), *module.buffers()]
    return Cost(
        ms=ms,
        gflops=flops / 1e9,
        parameters=sum(count(module)),
        memory_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
    )
