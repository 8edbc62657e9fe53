"""FSDP2: each rank holds a piece of what is trained and of the language model's layers, with torch alone.

Every layer is gathered for its own forward and backward pass; the other trainables are one group, gathered for the
whole step. What is frozen outside the layers (the tower's CLIP and experts, frozen embeddings) is whole on each rank:
it is never sent, and runs as it does without FSDP2.

Transformers shards through accelerate, which only does it on GPUs and takes the frozen tower apart with the rest; this
is torch's own `fully_shard`, as our choice.

See docs/design.md, "Training".
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from .. import dist


def shard(model: nn.Module, layers: Sequence[nn.Module], device: torch.device) -> None:
    """Hold a model in pieces from now on; every rank must call, before there is an optimizer.

    Args:
        model: The same on every rank; its parameters are new objects afterwards.
        layers: Modules within it that are gathered one at a time.
        device: Where this rank computes. A layer goes there whole only until it is divided.
    """
    mesh = init_device_mesh(device.type, (dist.world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    in_layers = {id(parameter) for layer in layers for parameter in layer.parameters()}
    whole = {p for p in model.parameters() if not p.requires_grad and id(p) not in in_layers}
    for parameter in whole:
        parameter.data = parameter.data.to(device)
    fully_shard(model, mesh=mesh, ignored_params=whole)


def local_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state dict with this rank's pieces as plain tensors."""

    def local(value: Any) -> Any:
        return value.to_local() if isinstance(value, DTensor) else value

    state = optimizer.state_dict()
    pieces = {key: {name: local(value) for name, value in kept.items()} for key, kept in state["state"].items()}
    return {**state, "state": pieces}


def load_local_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take up what `local_state` gave on this rank.

    Args:
        optimizer: Of a model that is divided in the same way.
        state: Keys are places of parameters in the optimizer's groups.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def whole(value: Any, parameter: torch.Tensor) -> Any:
        if not isinstance(parameter, DTensor) or not isinstance(value, torch.Tensor) or value.ndim != parameter.ndim:
            return value
        piece = value.to(parameter.device)
        return DTensor.from_local(
            piece, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
        )

    pieces = {
        key: {name: whole(value, parameters[key]) for name, value in kept.items()}
        for key, kept in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": pieces})
