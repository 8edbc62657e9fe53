"""Which experts a checkpoint has and which of them are detached, read off its files, nothing loaded."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import UserError
from ..storage import load_json
from ..tower.from_yaml import read_tower_yaml
from .model_info import read_model_block

CONFIG = "config.json"
_FUSION = "tove_fusion."
MEAN_TERMS = "tove_fusion.mean_terms."
"""What the names of tensors begin with, after the tower's prefix, that stand in a detached expert's place."""
GATE = "tove_fusion.gate.fc2.weight"
"""A tensor that every gated tower has; mean terms are put into the file that holds it."""


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """The experts of a checkpoint as its files name them."""

    expert_names: list[str]
    """All, in the order of the gate's columns."""
    detached: list[str]
    fixed: list[str]
    """Those of `detached` that this checkpoint never had: the tower that it refers to has them detached itself."""

    @property
    def attached(self) -> list[str]:
        """The others, in order."""
        return [name for name in self.expert_names if name not in self.detached]


def experts_in_config(folder: Path) -> Attachment:
    """Of a folder whose config.json has the tower in it.

    Raises:
        UserError: The model has a plain CLIP.
    """
    vision = vision_block(load_json(folder / CONFIG), folder)
    names = [entry["name"] for entry in vision["experts"]]
    return Attachment(expert_names=names, detached=list(vision.get("detached", [])), fixed=[])


def experts_of_block(folder: Path) -> Attachment:
    """Of a folder that names its tower in MODEL_FILE.

    Raises:
        UserError: The model has a plain CLIP, or the folder does not say what it belongs to.
    """
    block = read_model_block(folder)
    if block.vision_tower == "clip":
        raise no_experts(folder)
    source = Path(block.require_tower() if block.vision_tower == "tove" else block.vision_tower)
    if source.is_dir():
        tower = experts_in_config(source)
        names, fixed = tower.expert_names, tower.detached
    else:
        config = read_tower_yaml(source)
        names, fixed = [expert.name for expert in config.experts], list(config.detached)
    gone = {*fixed, *block.detached}
    return Attachment(expert_names=names, detached=[name for name in names if name in gone], fixed=fixed)


def vision_block(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tower's part of a config.json, itself a tower's, a LLaVA model's or a base model's.

    Raises:
        UserError: The model has a plain CLIP.
    """
    vision: dict[str, Any] = config if config.get("model_type") == "tove_vision" else {}
    for key in ("vision_config", "encoder"):
        vision = config.get(key) or vision
    if vision.get("model_type") != "tove_vision":
        raise no_experts(folder)
    return vision


def no_experts(folder: Path) -> UserError:
    """The error for a model without a ToVE tower."""
    return UserError(f"`{folder}` has a plain CLIP as its vision tower; it has no experts to detach or attach")


def tower_prefix(tensors: Iterable[str]) -> str | None:
    """What the names of the tower's tensors begin with; None when there is no `tove_fusion` among them."""
    return next((name.split(_FUSION, 1)[0] for name in tensors if _FUSION in name), None)


def experts_by_tensor(tensors: Iterable[str]) -> dict[str, str]:
    """Name of every tensor that is a frozen expert's weight, and that expert's name."""
    prefix = f"{tower_prefix(tensors)}experts."
    return {name: name[len(prefix) :].split(".", 1)[0] for name in tensors if name.startswith(prefix)}


def mean_terms_by_tensor(tensors: Iterable[str]) -> dict[str, str]:
    """Name of every tensor that stands in a detached expert's place, and that expert's name."""
    prefix = f"{tower_prefix(tensors)}{MEAN_TERMS}"
    return {name: name.removeprefix(prefix) for name in tensors if name.startswith(prefix)}


def set_detached(config: dict[str, Any], folder: Path, detached: list[str], mean_terms: Iterable[str]) -> None:
    """Put the names of the detached experts into a config.json's content.

    Args:
        config: Changed in place.
        folder: Named in the error.
        detached: In the order of the gate's columns.
        mean_terms: Those whose mean term stands in their place.

    Raises:
        UserError: The model has a plain CLIP.
    """
    kept = {*mean_terms}
    vision_block(config, folder).update(detached=detached, mean_terms=[name for name in detached if name in kept])
