"""The gate's balance loss in LAVIS's own training.

LAVIS's tasks train on the `loss` of what a model's forward gives, and its models take one tensor from the encoder. So
`Blip2Base.__call__` looks at the tower while the model's own forward runs, and adds to what that gives:

    loss          LAVIS's loss + balance_loss_weight * balance loss of these images
    loss_balance  balance loss, without weight and gradient; the wheel logs `loss` alone

In training only: in evaluation mode, without gradients or with weight 0 LAVIS's output is as it was.

See docs/hosts.md, "LAVIS".
"""

import functools
from typing import Any

import torch

from ...config import ConfigError
from ...config.ranges import Range, unfit
from ...tower.recorder import GateRecorder
from .tower import ToVEVisualEncoder

KEY = "balance_loss_weight"


def check_weight(value: Any) -> float:
    """What `balance_loss_weight` of LAVIS's `model` block says.

    Raises:
        ConfigError: It is no number of at least 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or unfit(value, Range(low=0)):
        raise ConfigError(f"`model.{KEY}` is {value}; expected a number of at least 0")
    return float(value)


def add_balance_loss(output: Any, balance: torch.Tensor | None, weight: float) -> None:
    """Change what a model's forward gives, see the module's docstring.

    Args:
        output: With `loss`, a scalar; a dict or one of LAVIS's outputs. One without is left alone.
        balance: Scalar float32 of the tower, without its weight; None where gradients are off.
        weight: 0 leaves the output alone.
    """
    if balance is None or not weight or not isinstance(output, dict) or output.get("loss") is None:
        return
    output["loss"] = output["loss"] + weight * balance.to(output["loss"].dtype)
    output["loss_balance"] = balance.detach()


def hook(base: Any) -> None:
    """Let every BLIP-2 model with the tower add the balance loss.

    Args:
        base: LAVIS's `Blip2Base`.
    """
    call = base.__call__

    @functools.wraps(call)
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        encoder = getattr(self, "visual_encoder", None)
        if not isinstance(encoder, ToVEVisualEncoder) or not self.training or not encoder.balance_loss_weight:
            return call(self, *args, **kwargs)
        with GateRecorder(encoder) as recorder:
            output = call(self, *args, **kwargs)
            balance = recorder.last.balance_loss if recorder.last is not None else None
        add_balance_loss(output, balance, encoder.balance_loss_weight)
        return output

    base.__call__ = __call__
