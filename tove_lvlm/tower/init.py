"""How the trainable layers start. Our choice; the paper does not say.

A layer carries its kind as a mark, so that the module itself and transformers' `_init_weights` (which visits layers
one by one after a load) do the same. Sizes are read from the layers' attributes: under ZeRO-3 a partitioned weight has
no shape.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import torch
from torch import nn
from transformers import initialization as init

FAN_IN = "fan_in"
ZERO = "zero"
STEM = "stem"

_MARK = "tove_init"


@contextmanager
def drawn_in_float32(module: nn.Module) -> Iterator[None]:
    """First values that are given inside are drawn in float32 and then rounded, so that a seed gives the same start in
    any dtype: torch draws other numbers for half precision.

    Args:
        module: One layer; those in it are left alone.
    """
    halves = {
        parameter: parameter.dtype
        for parameter in module.parameters(recurse=False)
        if parameter.dtype in (torch.bfloat16, torch.float16) and not getattr(parameter, "_is_hf_initialized", False)
    }
    for parameter in halves:
        parameter.data = parameter.data.float()
    try:
        yield
    finally:
        for parameter, dtype in halves.items():
            parameter.data = parameter.data.to(dtype)


Layer = TypeVar("Layer", bound=nn.Module)


def set_init(layer: Layer, kind: str) -> Layer:
    """Say how `layer` starts."""
    setattr(layer, _MARK, kind)
    return layer


def has_init(module: nn.Module) -> bool:
    """Whether `init_weights` knows this layer."""
    return hasattr(module, _MARK)


def init_weights(module: nn.Module, std: float = 0.02) -> None:
    """Give one layer its first values; parameters that were loaded are left alone.

    Args:
        module: `fan_in` and `stem` (a ReLU-like layer on a picture) keep the variance of their input, `zero` gives
            zero; other linear and conv layers are normal with `std`, norms are the identity.
        std: Of the ordinary layers.
    """
    kind = getattr(module, _MARK, None)
    # Not `isinstance`: what carries a mark may stand in for the layer it was made as.
    linear, conv = cast(nn.Linear, module), cast(nn.Conv2d, module)
    if kind == ZERO:
        init.zeros_(linear.weight)
        if linear.bias is not None:
            init.zeros_(linear.bias)
    elif kind == FAN_IN:
        init.normal_(linear.weight, std=linear.in_features**-0.5)
        init.zeros_(linear.bias)
    elif kind == STEM:
        fan_in = conv.in_channels * conv.kernel_size[0] * conv.kernel_size[1]
        init.normal_(conv.weight, std=(2 / fan_in) ** 0.5)
        if conv.bias is not None:
            init.zeros_(conv.bias)
    elif isinstance(module, nn.Linear | nn.Conv2d):
        init.normal_(module.weight, std=std)
        if module.bias is not None:
            init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        init.ones_(module.weight)
        init.zeros_(module.bias)
