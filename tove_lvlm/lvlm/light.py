"""Stage 1's result: a light folder with the projector, `tove_fusion` and references to everything frozen.

`projector.safetensors` holds `multi_modal_projector.*` and, with a ToVE tower, `vision_tower.tove_fusion.*`, named as
in the saved LLaVA model.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from ..config import ConfigError, present_names
from ..config.tower import FusionConfig
from ..storage import load_json, load_tensors, save_tensors
from ..zero import assign, collect

if TYPE_CHECKING:
    from transformers import LlavaConfig, LlavaForConditionalGeneration, PreTrainedConfig

    from ..tower.configuration import ToVEVisionConfig

PROJECTOR_FILE = "projector.safetensors"
MODEL_FILE = "tove_model.json"


def adapter_parts(model: nn.Module) -> dict[str, nn.Module]:
    """What stage 1 trains: the projector and, where the tower has one, `tove_fusion`, by their name in LlavaModel.

    Args:
        model: A LLaVA model, inside peft or not.
    """
    core = base_model(model).model
    parts: dict[str, nn.Module] = {"multi_modal_projector": core.multi_modal_projector}
    fusion = getattr(core.vision_tower, "tove_fusion", None)
    if fusion is not None:
        parts["vision_tower.tove_fusion"] = fusion
    return parts


def base_model(model: nn.Module) -> "LlavaForConditionalGeneration":
    """The LLaVA model itself, without peft's wrapper."""
    wrapper: Any = model
    return as_llava(wrapper.get_base_model() if hasattr(model, "get_base_model") else model)


def as_llava(model: nn.Module) -> "LlavaForConditionalGeneration":
    """The same object under its own type; peft's wrapper passes on what is asked of the model in it."""
    return cast("LlavaForConditionalGeneration", model)


def text_config(config: "LlavaConfig") -> "PreTrainedConfig":
    """The language model's; transformers' annotation also has what it is made from, a dictionary or nothing."""
    return cast("PreTrainedConfig", config.text_config)


def vision_config(config: "LlavaConfig") -> "PreTrainedConfig":
    """The vision tower's; as for `text_config`."""
    return cast("PreTrainedConfig", config.vision_config)


def collect_light(model: nn.Module) -> dict[str, torch.Tensor]:
    """Projector and fusion as whole CPU tensors on rank 0; every rank must call."""
    return collect(
        (f"{prefix}.{name}", parameter)
        for prefix, part in adapter_parts(model).items()
        for name, parameter in part.named_parameters()
    )


def save_light(folder: str | Path, tensors: dict[str, torch.Tensor], model: nn.Module, processor) -> None:
    """Write the light folder: tensors, configuration, tokenizer and processor. Rank 0 only.

    Args:
        folder: Made when absent.
        tensors: From `collect_light`.
        model: For its configuration.
        processor: From `build_lvlm`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    processor.save_pretrained(folder)
    base_model(model).config.save_pretrained(folder)
    save_tensors(folder / PROJECTOR_FILE, tensors, metadata={"format": "pt"})  # last: its presence means finished


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
    # Before this was written down, transfers had no scale.
    trained = present_names(FusionConfig, model_info.get("tower") or {"transfer_scale": None}, warn=False)
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


def load_light(model: nn.Module, folder: str | Path) -> None:
    """Put a light folder's tensors into the model; every rank must call.

    Raises:
        ConfigError: The folder's tensors are not those of this model's projector and tower.
    """
    path = Path(folder) / PROJECTOR_FILE
    tensors = load_tensors(path)
    info_file = Path(folder) / MODEL_FILE
    if info_file.is_file():
        check_tower(model, load_json(info_file), info_file)
    parts = adapter_parts(model)
    for prefix, part in parts.items():
        part_tensors = {k[len(prefix) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{prefix}.")}
        try:
            assign(part, part_tensors, where=f"{path}: {prefix}")
        except ValueError as error:
            raise ConfigError(f"`model.pretrain_mm_mlp_adapter`: {error}") from error
    foreign = [key for key in tensors if not key.startswith(tuple(f"{prefix}." for prefix in parts))]
    if foreign:
        raise ConfigError(
            f"`model.pretrain_mm_mlp_adapter`: {path} also holds `{foreign[0]}`, which this model has no place for; "
            "was it trained with another `model.vision_tower`?"
        )
