"""How the trainable layers start. Our choice; the paper does not say.

A layer carries its kind as a mark, so that the module itself and transformers' `_init_weights` (which visits layers
one by one after a load) do the same. Sizes are read from the layers' attributes: under ZeRO-3 a partitioned weight has
no shape.
"""

from typing import TypeVar

from torch import nn
from transformers import initialization as init

FAN_IN = "fan_in"
ZERO = "zero"
STEM = "stem"

Layer = TypeVar("Layer", bound=nn.Module)


def set_init(layer: Layer, kind: str) -> Layer:
    """Say how `layer` starts."""
    layer.tove_init = kind
    return layer


def has_init(module: nn.Module) -> bool:
    """Whether `init_weights` knows this layer."""
    return hasattr(module, "tove_init")


def init_weights(module: nn.Module, std: float = 0.02) -> None:
    """Give one layer its first values; parameters that were loaded are left alone.

    Args:
        module: `fan_in` and `stem` (a ReLU-like layer on a picture) keep the variance of their input, `zero` gives
            zero; other linear and conv layers are normal with `std`, norms are the identity.
        std: Of the ordinary layers.
    """
    kind = getattr(module, "tove_init", None)
    if kind == ZERO:
        init.zeros_(module.weight)
        init.zeros_(module.bias)
    elif kind == FAN_IN:
        init.normal_(module.weight, std=module.in_features**-0.5)
        init.zeros_(module.bias)
    elif kind == STEM:
        fan_in = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
        init.normal_(module.weight, std=(2 / fan_in) ** 0.5)
        init.zeros_(module.bias)
    elif isinstance(module, nn.Linear | nn.Conv2d):
        init.normal_(module.weight, std=std)
        if module.bias is not None:
            init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        init.ones_(module.weight)
        init.zeros_(module.bias)
