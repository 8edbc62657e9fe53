"""What a tower's YAML leaves out is, where trained weights are loaded, what it was in training: defaults change.

No torch is imported.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..storage import WeightsError, load_json
from .model import MODEL_FILE, ModelConfig
from .parsing import present_names
from .tower import EARLIER, FusionConfig


def read_model_info(folder: str | Path) -> dict[str, Any]:
    """What MODEL_FILE holds; empty where there is none, as in a model that others wrote.

    Raises:
        WeightsError: It is not a JSON object, or one of its blocks is none.
    """
    path = Path(folder) / MODEL_FILE
    model_info = load_json(path) if path.is_file() else {}
    for key in ("model", "tower"):
        if not isinstance(model_info.get(key), dict | None):
            raise WeightsError(f"file `{path}`: `{key}` is {model_info[key]!r:.60}; expected a block of keys")
    return model_info


def pixel_settings(folder: str | Path, image_aspect_ratio: str = "pad") -> dict[str, str]:
    """`image_aspect_ratio` and `transparency` that a model was trained with.

    Args:
        folder: The model's.
        image_aspect_ratio: Where nothing says it, as in a model that others wrote.

    Raises:
        WeightsError: Its MODEL_FILE is not a JSON object.
    """
    model_info = read_model_info(folder)
    return {
        "image_aspect_ratio": model_info.get("image_aspect_ratio", image_aspect_ratio),
        "transparency": model_info.get("transparency", "ignore"),
    }


def trained_settings(model_info: Mapping[str, Any]) -> dict[str, Any]:
    """What decides on a trained tower's output besides its weights, under the names of today.

    Args:
        model_info: Content of MODEL_FILE.
    """
    return EARLIER | present_names(FusionConfig, model_info.get("tower") or {}, warn=False)


def left_out(folder: str | Path) -> dict[str, Any]:
    """Keys of a tower's YAML as the weights of a folder were trained with them, for a YAML that does not have them.

    Args:
        folder: With trained weights; of stage 1 or of an adapter.

    Raises:
        WeightsError: Its MODEL_FILE is not a JSON object.
    """
    model_info = read_model_info(folder)
    settings = trained_settings(model_info) if model_info else EARLIER | _in_config(Path(folder) / "config.json")
    names = {field.name for field in dataclasses.fields(FusionConfig)}
    return {
        "expert_resample": settings["expert_resample"],
        "fusion": {name: value for name, value in settings.items() if name in names},
    }


def _in_config(file: Path) -> dict[str, Any]:
    """Settings of the tower in a LLaVA config.json, which stage 1 writes; of a folder that has no MODEL_FILE."""
    if not file.is_file():
        return {}
    vision = load_json(file).get("vision_config") or {}
    known = {key: vision[key] for key in ("expert_resample",) if key in vision}
    return {**present_names(FusionConfig, vision.get("fusion", {}), warn=False), **known}


def left_out_of_start(model: ModelConfig) -> dict[str, Any]:
    """The same of a `model` block's start from stage 1; nothing where there is none, or not yet.

    Args:
        model: The block, its paths resolved.
    """
    folder = model.pretrain_mm_mlp_adapter
    return left_out(folder) if folder is not None and Path(folder).is_dir() else {}
