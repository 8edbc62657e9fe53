"""Training in bfloat16 without DeepSpeed, which has float32 masters of its own.

At usual rates an update is smaller than half a step of bfloat16, and weights that are kept in it hardly move.
Trainables are therefore float32 while they are trained, under transformers' autocast, as peft does for LoRA.

See docs/design.md, "Training".
"""

import contextlib
from collections.abc import Iterator

import torch

from ..sharding import set_dtype


@contextlib.contextmanager
def float32_trainables(model: torch.nn.Module, needed: bool) -> Iterator[None]:
    """Keep a model's trainables in float32, and give them their own dtype back at the end.

    Args:
        model: Its frozen weights stay as they are.
        needed: Whether to do anything.
    """
    dtypes: dict[str, torch.dtype] = {}
    for name, parameter in model.named_parameters() if needed else ():
        if parameter.requires_grad and parameter.is_floating_point():
            dtypes[name] = parameter.dtype
            parameter.data = parameter.data.float()
    try:
        yield
    finally:
        # By name: FSDP2 puts other parameters in their places, and would not be rid of these while anything holds them.
        for name, dtype in dtypes.items():
            set_dtype(model, name, dtype)
