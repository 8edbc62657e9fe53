"""The tower that a LLaVA configuration names: where it is, its architecture, its parts.

The name is the one setting that survives LLaVA's own saving and loading, so PATH travels in it. A relative PATH is
looked for in the checkpoint first, so that a folder with its own tower can be moved.

See docs/hosts.md, "LLaVA".
"""

import contextlib
import contextvars
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from ... import storage
from ...config import UserError
from ...tower import checkpoint
from ...tower.build import build_tower
from ...tower.modeling import ToVEVisionModel
from ..names import tower_path

_checkpoint: contextvars.ContextVar[Path | None] = contextvars.ContextVar("tove_llava_checkpoint", default=None)


@contextlib.contextmanager
def loading_from(folder: Path) -> Iterator[None]:
    """Within this, a relative PATH may lie in `folder`: LLaVA forgets which checkpoint it loads over a base model."""
    token = _checkpoint.set(folder)
    try:
        yield
    finally:
        _checkpoint.reset(token)


def tower_name(settings: Any) -> str | None:
    """`mm_vision_tower` of a model's config, or `vision_tower` of the training arguments, as LLaVA reads them."""
    return getattr(settings, "mm_vision_tower", getattr(settings, "vision_tower", None))


def locate(settings: Any) -> Path:
    """The tower's YAML or folder.

    Args:
        settings: LLaVA's model config or its training arguments.

    Raises:
        UserError: Nothing is there, or it is no tower.
    """
    folders = [_checkpoint.get(), getattr(settings, "name_or_path", None)]
    return tower_path(tower_name(settings) or "", "mm_vision_tower", *(folder for folder in folders if folder))


class FusionElsewhere(nn.Module):
    """Stands in the tower for `tove_fusion`, which lives in LLaVA's projector."""

    def forward(self, *args: Any) -> None:
        raise RuntimeError("inside LLaVA the tower gives frozen features; tove_fusion is a part of mm_projector")


def build_frozen(path: Path) -> ToVEVisionModel:
    """The tower without its trainable part, nothing in it trainable; on the CPU.

    Raises:
        UserError: As for `build_tower`.
    """
    with torch.device("cpu"):  # a host may be building its own part on the meta device
        tower = build_tower(path)
    tower.tove_fusion = FusionElsewhere()
    return tower.requires_grad_(False).eval()


def saved_fusion(path: Path) -> dict[str, torch.Tensor] | None:
    """Weights of `tove_fusion` that a saved tower brings; None for a YAML, which has none.

    Raises:
        WeightsError: The folder holds none.
    """
    if not path.is_dir():
        return None
    fusion: dict[str, torch.Tensor] = {}
    for file in storage.weight_files(path):
        with safe_open(file, framework="pt") as tensors:
            names = [name for name in tensors.keys() if name.startswith(checkpoint.FUSION)]  # noqa: SIM118
            fusion |= {name.removeprefix(checkpoint.FUSION): tensors.get_tensor(name) for name in names}
    if not fusion:
        raise UserError(f"saved tower `{path}` holds no `{checkpoint.FUSION}*` tensors")
    return fusion
