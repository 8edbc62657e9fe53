"""Training in bfloat16 without DeepSpeed, which has float32 masters of its own.

At usual rates an update is smaller than half a step of bfloat16, and weights that are kept in it hardly move.
Trainables are therefore float32 while they are trained, under transformers' autocast, as peft does for LoRA.

See docs/design.md, "Training".
"""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def float32_trainables(model: torch.nn.Module, needed: bool) -> Iterator[None]:
    """Keep a model's trainables in float32, and give them their own dtype back at the end.

    Args:
        model: Its frozen weights stay as they are.
        needed: Whether to do anything.
    """
    trained = [p for p in model.parameters() if p.requires_grad and p.is_floating_point()] if needed else []
    dtypes = [parameter.dtype for parameter in trained]
    for parameter in trained:
        parameter.data = parameter.data.float()
    try:
        yield
    finally:
        for parameter, dtype in zip(trained, dtypes, strict=True):
            parameter.data = parameter.data.to(dtype)
