"""Read and write parameters that the ranks may hold in pieces, the same way with ZeRO-3, FSDP2 and neither.

Under ZeRO-3 a parameter's own shape is [0], under FSDP2 (`train.fsdp`) it is a DTensor of the whole shape; either must
be gathered by all ranks together before it is read or written.

See docs/design.md, "Training".
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from . import dist

if TYPE_CHECKING:

    class Partitioned(nn.Parameter):
        """What DeepSpeed puts on a parameter that it holds in pieces."""

        ds_numel: int
        ds_tensor: torch.Tensor | None


def is_partitioned(parameter: nn.Parameter) -> "TypeGuard[Partitioned]":
    """Whether ZeRO-3 holds this parameter in pieces."""
    return hasattr(parameter, "ds_id")


def numel(parameter: nn.Parameter) -> int:
    """Number of elements of the whole parameter."""
    return parameter.ds_numel if is_partitioned(parameter) else parameter.numel()


def local_values(parameter: nn.Parameter) -> torch.Tensor:
    """What this rank holds of the parameter's values."""
    if is_partitioned(parameter) and parameter.ds_tensor is not None:
        return parameter.ds_tensor
    values = parameter.detach()
    return values.to_local() if isinstance(values, DTensor) else values


@contextmanager
def gathered(parameters: Iterable[nn.Parameter], write: bool = False) -> Iterator[None]:
    """Hold the whole parameters while inside; every rank must enter. Of FSDP2's, which are divided only once training
    starts, nothing is gathered: `collect` reads those.

    Args:
        parameters: The parameters to hold.
        write: Rank 0 changes them and all ranks take its values; without ZeRO-3 every rank must make the same change.
    """
    partitioned = [parameter for parameter in parameters if is_partitioned(parameter)]
    context = nullcontext()
    if partitioned:
        import deepspeed

        context = deepspeed.zero.GatheredParameters(partitioned, modifier_rank=0 if write else None)
    with context:
        yield


def collect(named: Iterable[tuple[str, nn.Parameter]]) -> dict[str, torch.Tensor]:
    """Whole copies on the CPU on rank 0, an empty dict elsewhere; one parameter at a time is gathered.

    Args:
        named: (name, parameter) pairs, in the same order on every rank.
    """
    tensors = {}
    for name, parameter in named:
        with gathered([parameter]):
            values = parameter.detach()
            values = values.full_tensor() if isinstance(values, DTensor) else values
            if dist.is_main():
                tensors[name] = values.to("cpu", copy=True).contiguous()
    return tensors


def collect_trainable(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every trainable as a whole CPU tensor on rank 0, by its name in `model`; every rank must call."""
    return collect((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


@torch.no_grad()
def copy_into(parameter: nn.Parameter, values: torch.Tensor) -> None:
    """Copy a whole tensor into a parameter that ZeRO-3 does not hold; of one that FSDP2 holds, this rank's piece.

    Args:
        parameter: Of a model on this rank.
        values: The parameter's whole shape, the same on every rank.
    """
    if isinstance(parameter, DTensor):
        values = values.to(parameter.device)
        parameter.copy_(distribute_tensor(values, parameter.device_mesh, parameter.placements, src_data_rank=None))
    else:
        parameter.copy_(values)


def set_dtype(model: nn.Module, name: str, dtype: torch.dtype) -> None:
    """Give a parameter another dtype. One that FSDP2 holds becomes another object, and no forward pass may follow.

    Args:
        model: Has the parameter; wherever else in it the same one is, it is changed too.
        name: The parameter's.
        dtype: Its new one.
    """
    parameter = model.get_parameter(name)
    if not isinstance(parameter, DTensor):
        parameter.data = parameter.data.to(dtype)
    elif parameter.dtype != dtype:  # its `data` keeps the old dtype whatever is assigned
        changed = nn.Parameter(parameter.detach().to(dtype), requires_grad=parameter.requires_grad)
        for other, found in list(model.named_parameters(remove_duplicate=False)):
            if found is parameter:
                owner, _, leaf = other.rpartition(".")
                setattr(model.get_submodule(owner), leaf, changed)


def assign(module: nn.Module, tensors: dict[str, torch.Tensor], where: str) -> None:
    """Copy tensors into a module's parameters; every rank holds `tensors` and must call.

    Args:
        module: The module, partitioned or not.
        tensors: Exactly the module's parameters by name.
        where: File or folder for the message.

    Raises:
        ValueError: A key is missing, unexpected or of another shape.
    """
    named = dict(module.named_parameters())
    missing, unexpected = sorted(named.keys() - tensors.keys()), sorted(tensors.keys() - named.keys())
    if missing or unexpected:
        raise ValueError(f"{where}: does not fit the model: missing {missing[:3]}, unexpected {unexpected[:3]}")
    for name, parameter in named.items():
        shape = tuple(getattr(parameter, "ds_shape", parameter.shape))
        if shape != tuple(tensors[name].shape):
            raise ValueError(f"{where}: `{name}` is {tuple(tensors[name].shape)}, the model has {shape}")
        with gathered([parameter], write=True), torch.no_grad():
            if dist.is_main() or not is_partitioned(parameter):
                parameter.copy_(tensors[name])
