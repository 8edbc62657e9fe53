"""Which experts a checkpoint has and which of them are detached, read off its files, nothing loaded."""

from dataclasses import dataclass
from pathlib import Path

from ..config import UserError, parse
from ..config.model import ModelConfig
from ..lvlm.light import MODEL_FILE
from ..lvlm.loading import MERGED, TOWER
from ..storage import load_json
from ..tower.from_yaml import read_tower_yaml

CONFIG = "config.json"


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


def read_attachment(kind: str, folder: Path) -> Attachment:
    """Read it.

    Args:
        kind: As `lvlm.loading.locate` says.
        folder: Where the checkpoint really lies.

    Raises:
        UserError: The model has a plain CLIP, or the folder does not say what it belongs to.
    """
    if kind in (TOWER, MERGED):
        vision = vision_block(load_json(folder / CONFIG), folder)
        names = [entry["name"] for entry in vision["experts"]]
        return Attachment(expert_names=names, detached=list(vision.get("detached", [])), fixed=[])
    file = folder / MODEL_FILE
    model_info = load_json(file)
    if "model" not in model_info:
        raise UserError(f"{file} has no `model` block, which says what the checkpoint belongs to")
    block = parse(ModelConfig, model_info["model"], where=str(file), warn=False)
    if block.vision_tower == "clip":
        raise no_experts(folder)
    source = Path(block.require_tower() if block.vision_tower == "tove" else block.vision_tower)
    if source.is_dir():
        tower = read_attachment(TOWER, source)
        names, fixed = tower.expert_names, tower.detached
    else:
        section = read_tower_yaml(source)
        names, fixed = [expert.name for expert in section.experts], list(section.detached)
    gone = {*fixed, *block.detached}
    return Attachment(expert_names=names, detached=[name for name in names if name in gone], fixed=fixed)


def vision_block(config: dict, folder: Path) -> dict:
    """The tower's part of a config.json, itself a tower's or a LLaVA model's.

    Raises:
        UserError: The model has a plain CLIP.
    """
    vision = config if config.get("model_type") == "tove_vision" else config.get("vision_config", {})
    if vision.get("model_type") != "tove_vision":
        raise no_experts(folder)
    return vision


def no_experts(folder: Path) -> UserError:
    """The error for a model without a ToVE tower."""
    return UserError(f"`{folder}` has a plain CLIP as its vision tower; it has no experts to detach or attach")
