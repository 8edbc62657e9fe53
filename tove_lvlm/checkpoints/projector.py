"""What stage 1 trains, on disk: one file with the projector and, of a ToVE tower, `tove_fusion`.

`projector.safetensors` holds `multi_modal_projector.*` and `vision_tower.tove_fusion.*`, named as in the saved LLaVA
model.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ..config import ConfigError
from ..config.model import MODEL_FILE, PROJECTOR_FILE
from ..config.trained import read_model_info
from ..lvlm.parts import adapter_parts
from ..sharding import assign, collect
from ..storage import check_numbers, load_tensors
from ..tower.attachment import keep_mean_terms
from ..tower.recorder import find_tower
from .experts import MEAN_TERMS
from .model_info import check_tower


def collect_projector(model: nn.Module) -> dict[str, torch.Tensor]:
    """Projector and fusion as whole CPU tensors on rank 0; every rank must call."""
    return collect(
        (f"{prefix}.{name}", parameter)
        for prefix, part in adapter_parts(model).items()
        for name, parameter in part.named_parameters()
    )


def load_projector(model: nn.Module, folder: str | Path) -> None:
    """Put the projector and `tove_fusion` of stage 1's folder into a model; every rank must call.

    Args:
        model: A LLaVA model with a tower of the same architecture.
        folder: Stage 1's.

    Raises:
        ConfigError: The folder's tensors are not those of this model's projector and tower.
        WeightsError: They hold NaN or infinity.
    """
    path = Path(folder) / PROJECTOR_FILE
    tensors = load_tensors(path)
    check_numbers(tensors, f"`model.pretrain_mm_mlp_adapter`: {path}")
    if model_info := read_model_info(folder):
        check_tower(model, model_info, Path(folder) / MODEL_FILE)
    assign_projector(model, tensors, path, "`model.pretrain_mm_mlp_adapter`: ")


def assign_projector(model: nn.Module, tensors: Mapping[str, torch.Tensor], path: Path, key: str = "") -> None:
    """Put tensors of `collect_projector` into a model; every rank must call.

    Args:
        model: With a tower of the same architecture.
        tensors: All of projector and `tove_fusion`.
        path: Where they come from, for messages.
        key: What named that, for messages.

    Raises:
        ConfigError: They are not those of this model's projector and tower.
    """
    _make_room(model, tensors)
    parts = adapter_parts(model)
    for prefix, part in parts.items():
        part_tensors = {k[len(prefix) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{prefix}.")}
        try:
            assign(part, part_tensors, where=f"{path}: {prefix}")
        except ValueError as error:
            raise ConfigError(f"{key}{error}") from error
    foreign = [name for name in tensors if not name.startswith(tuple(f"{prefix}." for prefix in parts))]
    if foreign:
        raise ConfigError(
            f"{key}{path} also holds `{foreign[0]}`, which this model has no place for; "
            "was it trained with another `model.vision_tower`?"
        )


def _make_room(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Mean terms in the place of detached experts are weights that a tower out of a YAML does not have yet."""
    prefix = f"vision_tower.{MEAN_TERMS}"
    found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    tower = find_tower(model)
    if tower is None or not found:
        return
    try:
        keep_mean_terms(tower, found)
    except ValueError as error:
        raise ConfigError(f"`model.detached` is not that of the weights: {error}") from error
