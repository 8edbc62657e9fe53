"""The language model's loss a chunk of tokens at a time, so that the logits of all of them are never held.

Of 2,700 labels and Llama's 32,000 words logits and their gradient take about 1 GB, of Qwen's 152,000 words 5. torch
computes each chunk's gradient with its loss, which takes a third longer than the whole (docs/design.md, "Training").

Shapes: B, L labels of a row, D width.

Source: torch's `linear_cross_entropy`; our choice is that it runs inside the output layer, where ZeRO-3 has its weight.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..config import ConfigError
from .parts import base_model


def require_chunked_loss() -> None:
    """Refuse a torch without it.

    Raises:
        ConfigError: It is too old.
    """
    if not hasattr(nn, "LinearCrossEntropyOptions"):
        raise ConfigError(
            f"`train.chunked_loss`: torch {torch.__version__} has no chunked `linear_cross_entropy`; install 2.15 or "
            "newer, or leave the key out"
        )


@contextmanager
def chunked_loss(model: nn.Module, shift_labels_BL: torch.Tensor) -> Iterator[None]:
    """A forward pass inside gives this loss, the same but for rounding; its `logits` are the loss too.

    Args:
        model: A LLaVA model, inside peft or not.
        shift_labels_BL: Label of each place whose logits are asked for (`logits_to_keep`), or -100.
    """
    llava = base_model(model)
    head = llava.lm_head

    def sum_of_losses(hidden_BLD: torch.Tensor) -> torch.Tensor:
        return F.linear_cross_entropy(
            hidden_BLD.flatten(0, 1),
            head.weight,
            shift_labels_BL.flatten(),
            linear_bias=head.bias,
            reduction="sum",
            options=nn.LinearCrossEntropyOptions(),
        )

    def mean_of_losses(logits: torch.Tensor, num_items_in_batch: torch.Tensor | int, **kwargs: Any) -> torch.Tensor:
        return logits / num_items_in_batch

    head.forward = sum_of_losses
    llava.loss_function = mean_of_losses
    try:
        yield
    finally:
        del head.forward, llava._loss_function
