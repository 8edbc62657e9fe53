"""Collect what hosts drop: the gate's probabilities and the balance loss.

See docs/design.md, "Tower".
"""

from typing import Any

from torch import nn

from .modeling import ToVEVisionModel
from .output import ToVEOutput


def find_tower(model: nn.Module) -> ToVEVisionModel | None:
    """The tower inside any model, however wrapped, or None."""
    return next((module for module in model.modules() if isinstance(module, ToVEVisionModel)), None)


class GateRecorder:
    """Keeps the output of the tower's latest call, its graph included, until `clear`.

    Args:
        model: A tower, or any model that holds one.

    Raises:
        ValueError: There is no tower in it.
    """

    def __init__(self, model: nn.Module):
        tower = find_tower(model)
        if tower is None:
            raise ValueError(f"{type(model).__name__} holds no ToVEVisionModel; there is no gate to record")
        self.tower = tower
        self.last: ToVEOutput | None = None
        self._handle = tower.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, args: tuple[Any, ...], output: ToVEOutput) -> None:
        self.last = output if isinstance(output, ToVEOutput) else None

    def clear(self) -> None:
        """Let go of the latest output and its graph."""
        self.last = None

    def remove(self) -> None:
        """Stop recording."""
        self._handle.remove()
        self.clear()

    def __enter__(self) -> "GateRecorder":
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()
