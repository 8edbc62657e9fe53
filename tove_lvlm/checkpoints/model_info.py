"""`tove_model.json` beside a model: the `model` block that it was built from, and what else loading must know."""

import dataclasses
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from packaging.version import InvalidVersion, Version
from torch import nn

from ..config import ConfigError, UserError, parse
from ..config.model import MODEL_FILE, V1_TEMPLATE, ModelConfig
from ..config.sources import SHIPPED, local_path, portable
from ..config.tower import FusionConfig
from ..config.trained import left_out, read_model_info, trained_settings
from ..lvlm.parts import base_model, vision_config
from ..provenance import versions
from ..storage import save_json
from ..tower.from_yaml import read_tower_yaml

if TYPE_CHECKING:
    from ..tower.configuration import ToVEVisionConfig

logger = logging.getLogger(__name__)

CHAT_TEMPLATE_FILE = "chat_template.jinja"
"""Where transformers' processors write theirs."""
_PACKAGE = "tove-lvlm"
_PLACES = ("llm", "vision_tower", "tower", "clip", "decoder", "pretrained", "pretrain_mm_mlp_adapter")
"""Keys of a `model` block that name files, folders or hub ids."""


def make_model_info(
    block: Mapping[str, Any], model: nn.Module, image_aspect_ratio: str, transparency: str = "white"
) -> dict[str, Any]:
    """What MODEL_FILE holds: all that loading must know of the run.

    Args:
        block: The `model` block, plain.
        model: With the tower that was trained.
        image_aspect_ratio: As in training.
        transparency: As in training.
    """
    pixels = {"image_aspect_ratio": image_aspect_ratio, "transparency": transparency}
    places = {key: portable(block[key]) for key in _PLACES if isinstance(block.get(key), str)}
    written_by = versions((_PACKAGE, "torch", "transformers"))
    return {"model": {**block, **places}, **pixels, "tower": _tower_of(model), "written_by": written_by}


def check_version(folder: str | Path) -> None:
    """Warn of a model that a newer version of this package has trained, of which this one may not know all.

    Args:
        folder: May have MODEL_FILE.
    """
    written_by = read_model_info(folder).get("written_by")
    then = written_by.get(_PACKAGE) if isinstance(written_by, dict) else None
    now = versions((_PACKAGE,)).get(_PACKAGE)
    try:
        is_newer = now is not None and Version(str(then)) > Version(now)
    except InvalidVersion:  # none, or what somebody wrote there
        is_newer = False
    if is_newer:
        logger.warning(
            "%s was trained with %s %s, and this is %s; if it is refused or answers otherwise, update this package",
            folder,
            _PACKAGE,
            then,
            now,
        )


def check_tower(model: nn.Module, model_info: Mapping[str, Any], where: str | Path) -> None:
    """Make sure that the tower still computes as it did in training: a YAML may have been changed since.

    Args:
        model: As it has been built.
        model_info: Content of MODEL_FILE.
        where: Named in the message.

    Raises:
        ConfigError: A setting differs; names it with both values.
    """
    current = _tower_of(model)
    if current is None:
        return
    for key, then in trained_settings(model_info).items():
        if current[key] != then:
            raise ConfigError(
                f"{where}: the tower was trained with `{key}` {then}, and its YAML or folder now says {current[key]}; "
                "restore the old one, or load the merged model, which holds its own settings"
            )


def tower_settings(config: "ToVEVisionConfig") -> dict[str, Any]:
    """What decides on a tower's output besides weights; shapes are checked when those are loaded.

    Args:
        config: The tower's.
    """
    names = [item.name for item in dataclasses.fields(FusionConfig) if item.metadata.get("affects_output", True)]
    fusion = {name: config.fusion[name] for name in names}
    pixels = {"select_layer": config.select_layer, "expert_resample": config.expert_resample}
    return {**fusion, **pixels, "experts": config.expert_names}


def _tower_of(model: nn.Module) -> dict[str, Any] | None:
    config = vision_config(base_model(model).config)
    return tower_settings(cast("ToVEVisionConfig", config)) if hasattr(config, "fusion_settings") else None


def save_model_info(folder: str | Path, model_info: Mapping[str, Any]) -> None:
    """Write MODEL_FILE.

    Args:
        folder: Exists.
        model_info: From `make_model_info`, or a part of it.
    """
    save_json(Path(folder) / MODEL_FILE, dict(model_info))


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
    block = {**block, **changes}
    block |= {key: _here(block[key], folder) for key in _PLACES if isinstance(block.get(key), str)}
    return parse(ModelConfig, block, where=str(Path(folder) / MODEL_FILE), warn=False)


def own_template(folder: str | Path) -> str:
    """`model.chat_template` of a trained folder: the template that was saved with it.

    Args:
        folder: With a processor.
    """
    file = Path(folder) / CHAT_TEMPLATE_FILE
    return str(file) if file.is_file() else V1_TEMPLATE


def check_places(block: ModelConfig, folder: str | Path) -> None:
    """Say what a checkpoint refers to and is not there any more, before a library says it at length.

    Args:
        block: From `read_model_block`.
        folder: The checkpoint.

    Raises:
        UserError: Names the key and the command that gives it another value.
    """
    for key in _PLACES:
        place = getattr(block, key, None)
        if isinstance(place, str) and Path(place).is_absolute() and not Path(place).exists():
            raise UserError(
                f"`{folder}` refers to `{place}`, which is not there any more; say where it is now: tove relocate "
                f"{folder} --{key.replace('_', '-')} PLACE (written at `model.{key}` in its {MODEL_FILE})"
            )


def _here(place: str, folder: str | Path) -> str:
    """On this machine: a place that starts with ./ or ../ is beside the checkpoint, and moved with it."""
    return os.path.abspath(local_path(place, folder)) if place.startswith((SHIPPED, "./", "../")) else place


def read_trained_block(folder: str | Path, **changes: Any) -> ModelConfig:
    """The same, its tower's YAML read as in training: what the file leaves out may have another default by now.

    Args:
        folder: As for `read_model_block`.
        **changes: The same.

    Raises:
        UserError: As for `read_model_block`.
        ConfigError: The tower's YAML is gone or does not fit.
    """
    block = read_model_block(folder, **changes)
    check_places(block, folder)
    if block.vision_tower != "tove":
        return block
    return dataclasses.replace(block, tower_config=read_tower_yaml(block.require_tower(), left_out=left_out(folder)))
