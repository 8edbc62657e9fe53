"""Layers of a transformers encoder behind the hidden states that are read: they need not be run.

Such an encoder gives all its hidden states at its end. A layer that passes on what it gets costs nothing, and keeps its
weights, their names and its place.

Shapes: B images, N tokens, D width.

Source: our choice.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def unread_layers(layers: nn.ModuleList, read: int | Sequence[int]) -> list[nn.Module]:
    """Those behind the last hidden state that is read.

    Args:
        layers: All, in order.
        read: Index into `hidden_states`, of which the first is what the first layer gets; or several.

    Raises:
        IndexError: There is no such hidden state.
    """
    states = range(len(layers) + 1)
    return list(layers)[max(states[index] for index in ([read] if isinstance(read, int) else read)) :]


def pass_on(hidden_BND: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """In place of a layer's `forward`.

    Args:
        hidden_BND: What it gets.
        *args: What else transformers gives it.
        **kwargs: As `args`.
    """
    return hidden_BND
