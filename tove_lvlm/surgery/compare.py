"""A checkpoint before and after, side by side in one process: speed, memory, size.

Their forwards alternate (A B, B A, A B, ...) and the medians are compared, so that a machine that is busy for a while
is busy for both.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from ..checkpoints import Checkpoint, LoadedCheckpoint
from ..cost import clock_of
from ..inference import responder_of
from ..tower.modeling import ToVEVisionModel

BATCH_SIZE = 8
QUESTION = "What is in the image?"
_MIN_ROUNDS, _MAX_ROUNDS = 7, 200


def share_equal(source: nn.Module, target: nn.Module, changed: tuple[str, ...] = ()) -> None:
    """Let `target` use the memory of `source` for every weight of its own: they must be the same.

    Args:
        source: Model with at least the weights of `target`.
        target: Model whose own copies are let go.
        changed: Ends of the names of weights that are meant to differ; they stay the target's own.

    Raises:
        RuntimeError: A weight differs; then what was written is not what was meant.
    """
    weights = dict(source.named_parameters())
    for name, parameter in target.named_parameters():
        if changed and name.endswith(changed):
            continue
        ours = weights.get(name)
        if ours is None or not torch.equal(ours.data, parameter.data.to(ours.device)):
            raise RuntimeError(f"the saved model differs in `{name}`")
        parameter.data = ours.data


def latencies(sides: Mapping[str, LoadedCheckpoint], seconds: float = 4.0) -> dict[str, dict[str, float]]:
    """Milliseconds per image of the tower, and of a whole prompt with its image where there is a language model.

    Args:
        sides: Name to checkpoint, all on one device.
        seconds: How long to measure each of the two, about.

    Returns:
        Side to `tower_ms` and, with a language model, `prefill_ms`; medians at batch size 8.
    """
    samples: dict[str, dict[str, float]] = {name: {} for name in sides}
    towers = {name: tower_call(loaded.require_tower()) for name, loaded in sides.items()}
    for name, ms in alternate(towers, next(iter(sides.values())).device, seconds).items():
        samples[name]["tower_ms"] = ms / BATCH_SIZE
    if all(loaded.checkpoint.has_language_model for loaded in sides.values()):
        prompts = {name: _prefill_call(loaded) for name, loaded in sides.items()}
        for name, ms in alternate(prompts, next(iter(sides.values())).device, seconds).items():
            samples[name]["prefill_ms"] = ms / BATCH_SIZE
    return samples


@torch.inference_mode()
def alternate(
    calls: Mapping[str, Callable[[], object]], device: torch.device, seconds: float = 2.0
) -> dict[str, float]:
    """Median milliseconds of each call, after one call each to warm up.

    Args:
        calls: Name to what is timed.
        device: Waited for.
        seconds: How long to go on, in all; at least 7 rounds, at most 200.
    """
    clock = clock_of(device)
    for call in calls.values():
        call()
    elapsed: dict[str, list[float]] = {name: [] for name in calls}
    begun = clock()
    for number in range(_MAX_ROUNDS):
        if number >= _MIN_ROUNDS and clock() - begun > 1e3 * seconds:
            break
        for name in sorted(calls, reverse=bool(number % 2)):
            start = clock()
            calls[name]()
            elapsed[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in elapsed.items()}


def tower_call(tower: ToVEVisionModel) -> Callable[[], object]:
    """A forward of the tower on 8 images of noise."""
    pixels_B3HW = _pixels(tower)
    return lambda: tower(pixels_B3HW)


def tower_ms(tower: ToVEVisionModel, names: Sequence[str]) -> float:
    """Milliseconds per image with only these of its attached experts; afterwards the tower is as it was."""
    away = [name for name in tower.attached_names if name not in names]
    if away:
        tower.detach(*away)
    try:
        return alternate({"tower": tower_call(tower)}, tower.device)["tower"] / BATCH_SIZE
    finally:
        if away:
            tower.attach(*away)


def weight_bytes(model: nn.Module) -> int:
    """Memory of a model's parameters and buffers, shared ones once."""
    tensors = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def file_bytes(checkpoint: Checkpoint) -> int:
    """Size of the files that make up a checkpoint."""
    return sum(path.stat().st_size for path in checkpoint.files())


def _pixels(tower: ToVEVisionModel) -> torch.Tensor:
    size, like = tower.config.image_size, next(tower.parameters())
    return torch.randn(BATCH_SIZE, 3, size, size, generator=torch.Generator().manual_seed(0)).to(like)


def _prefill_call(loaded: LoadedCheckpoint) -> Callable[[], object]:
    responder, pixels_B3HW = responder_of(loaded.model, loaded.processor), _pixels(loaded.require_tower())
    ids_T = torch.tensor(responder.encode_question(QUESTION, num_images=1), device=loaded.device)
    ids_BT = ids_T.expand(BATCH_SIZE, -1)
    return lambda: responder.prefill(ids_BT, pixels_B3HW)
