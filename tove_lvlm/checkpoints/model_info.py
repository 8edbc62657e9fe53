"""`tove_model.json` beside a model: the `model` block that it was built from, and what else loading must know."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from ..config import ConfigError, UserError, parse, present_names
from ..config.model import MODEL_FILE, ModelConfig
from ..config.tower import FusionConfig
from ..lvlm.parts import base_model
from ..storage import save_json

if TYPE_CHECKING:
    from ..tower.configuration import ToVEVisionConfig


def make_model_info(block: Mapping[str, Any], model: nn.Module, image_aspect_ratio: str) -> dict[str, Any]:
    """What MODEL_FILE holds: all that loading must know of the run.

    Args:
        block: The `model` block, plain.
        model: With the tower that was trained.
        image_aspect_ratio: As in training.
    """
    return {"model": dict(block), "image_aspect_ratio": image_aspect_ratio, "tower": _tower_arithmetic(model)}


def check_tower(model: nn.Module, model_info: Mapping[str, Any], where: str | Path) -> None:
    """Make sure that the tower still computes as it did in training: a YAML may have been changed since.

    Args:
        model: As it has been built.
        model_info: Content of MODEL_FILE.
        where: Named in the message.

    Raises:
        ConfigError: A setting differs; names it with both values.
    """
    current = _tower_arithmetic(model)
    if current is None:
        return
    # Before this was written down, transfers had no scale; before they could share a layer, they shared none.
    trained = present_names(FusionConfig, model_info.get("tower") or {"transfer_scale": None}, warn=False)
    trained.setdefault("transfer", "separate")
    for key, then in trained.items():
        if current[key] != then:
            raise ConfigError(
                f"{where}: the tower was trained with `{key}` {then}, and its YAML or folder now says {current[key]}; "
                "restore the old one, or load the merged model, which holds its own settings"
            )


def _tower_arithmetic(model: nn.Module) -> dict[str, Any] | None:
    """What decides on the tower's output besides weights; shapes are checked when those are loaded."""
    if not hasattr(base_model(model).config.vision_config, "fusion_settings"):
        return None
    config = cast("ToVEVisionConfig", base_model(model).config.vision_config)
    names = [item.name for item in dataclasses.fields(FusionConfig) if item.metadata.get("affects_output", True)]
    fusion = {name: config.fusion[name] for name in names}
    return {**fusion, "select_layer": config.select_layer, "experts": config.expert_names}


def save_model_info(folder: str | Path, model_info: Mapping[str, Any]) -> None:
    """Write MODEL_FILE.

    Args:
        folder: Exists.
        model_info: From `make_model_info`, or a part of it.
    """
    save_json(Path(folder) / MODEL_FILE, dict(model_info))


def read_model_info(folder: str | Path) -> dict[str, Any]:
    """What MODEL_FILE holds; empty where there is none, as in a model that others wrote.

    Raises:
        UserError: It is not valid JSON.
    """
    path = Path(folder) / MODEL_FILE
    if not path.is_file():
        return {}
    try:
        model_info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return model_info
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


def read_model_block(folder: str | Path, **changes: Any) -> ModelConfig:
    """The `model` block that a checkpoint belongs to.

    Args:
        folder: Has MODEL_FILE.
        **changes: Keys put over it.

    Raises:
        UserError: There is no such block, or it does not fit.
    """
    block = read_model_info(folder).get("model")
    if block is None:
        raise UserError(f"folder `{folder}` has no {MODEL_FILE} with a `model` block, which says what it belongs to")
    return parse(ModelConfig, block | changes, where=str(Path(folder) / MODEL_FILE), warn=False)
