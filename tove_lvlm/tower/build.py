"""Build a tower from its YAML, frozen weights loaded, or load a saved one.

See docs/design.md, "Tower".
"""

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .. import storage
from ..config import ConfigError
from ..config.sources import is_hub_id, resolve_source
from ..config.tower import BackboneConfig, ClipConfig, TowerConfig, check_names
from ..experts import describe
from ..storage.pretrained import read_pretrained
from ..weights.sources import fetch, recorded, verify
from .checkpoint import load_base
from .clip import read_architecture, read_normalisation
from .configuration import ToVEVisionConfig
from .from_yaml import read_tower_yaml
from .modeling import ToVEVisionModel

logger = logging.getLogger(__name__)


def build_tower(
    source: str | os.PathLike[str] | TowerConfig,
    options: Sequence[str] = (),
    detached: Sequence[str] = (),
    dtype: torch.dtype | None = None,
) -> ToVEVisionModel:
    """The tower of a YAML with its frozen parts loaded, or a saved tower.

    Args:
        source: YAML, what was read from one, or folder written by `save_pretrained`, whole or light.
        options: `a.b=c` strings put over a YAML.
        detached: Experts to leave out besides those that the source says; of a YAML their weights are not even read.
        dtype: Of all weights, without a float32 copy of them on the way; that of the saved tower, or float32, when it
            is left out.

    Returns:
        On the CPU, in eval mode; `tove_fusion` is at its start when it comes from a YAML.

    Raises:
        ConfigError: The YAML does not fit.
        WeightsError: Weights are missing, truncated, or do not fit; nothing is left random unless the YAML says
            `pretrained: none`.
        ImportError: An expert's package is absent.
    """
    if isinstance(source, TowerConfig):
        return _build(source, detached, "the tower's YAML", dtype)
    path = Path(resolve_source(source))
    if not path.is_dir():
        return _build(read_tower_yaml(path, options), detached, str(path), dtype)
    if options:
        raise ValueError(f"options {list(options)} are for a tower's YAML; `{path}` is a saved tower")
    options_of_loading: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    saved: ToVEVisionModel = read_pretrained(ToVEVisionModel, path, **options_of_loading)
    if detached:
        check_names(saved.expert_names, detached, str(path))
        saved.detach(*detached)
    return saved


def _build(tower: TowerConfig, detached: Sequence[str], where: str, dtype: torch.dtype | None) -> ToVEVisionModel:
    check_names([expert.name for expert in tower.experts], detached, where)
    names = [expert.name for expert in tower.experts if expert.name in {*tower.detached, *detached}]
    tower = dataclasses.replace(tower, detached=names)
    # The checks of all weight files first: nothing is built for a source that is not there or is another one.
    weights_paths = {part: fetch(source) for part, source in tower.parts.items() if source.pretrained is not None}
    for weights_path in weights_paths.values():
        for file in storage.weight_files(weights_path):
            storage.check_whole(file)
    fingerprints = {part: verify(tower.parts[part], weights_path) for part, weights_path in weights_paths.items()}
    model = ToVEVisionModel(vision_config(tower), dtype)
    _load(model, tower, weights_paths)
    model.sources = {
        "clip": recorded(tower.base, fingerprints.get("clip"), weights_paths.get("clip")),
        "experts": {
            expert.name: recorded(expert, fingerprints.get(expert.name), weights_paths.get(expert.name))
            for expert in tower.experts
        },
    }
    model.eval()
    return model


def tower_config_from_yaml(path: str | os.PathLike[str], options: Sequence[str] = ()) -> ToVEVisionConfig:
    """The architecture that a YAML describes, without weights, for the meta device.

    Args:
        path: YAML.
        options: `a.b=c` strings put over it.

    Raises:
        ConfigError: It does not fit, or the sizes of a CLIP on the hub are not to be had and `clip.architecture` does
            not give them.
    """
    return vision_config(read_tower_yaml(os.fspath(path), options))


def vision_config(tower: TowerConfig) -> ToVEVisionConfig:
    """The transformers config of a checked YAML.

    Raises:
        ConfigError: As for `tower_config_from_yaml`.
    """
    base = tower.base
    stated = _backbone_keys(base) if isinstance(base, BackboneConfig) else _clip_keys(base)
    # The shape of what an expert gives is architecture: with it in the config a reader need not build the network.
    specs = [describe(expert.fields) for expert in tower.experts]
    experts = [
        {**expert.fields, "channels": expert.fields["channels"] or spec.channels, "grid": list(spec.grid)}
        for expert, spec in zip(tower.experts, specs, strict=True)
    ]
    return ToVEVisionConfig(
        experts=experts,
        detached=tower.detached,
        input_size=base.input_size,
        expert_resample=tower.expert_resample,
        fusion=dataclasses.asdict(tower.fusion),
        **stated,
    )


def _backbone_keys(base: BackboneConfig) -> dict[str, Any]:
    return {"base": base.fields}


def _clip_keys(clip: ClipConfig) -> dict[str, Any]:
    architecture, normalisation = _clip_architecture(clip)
    mean, std = normalisation or (None, None)
    normalised = {"image_mean": clip.image_mean or mean, "image_std": clip.image_std or std}
    return {"clip_config": architecture, "select_layer": clip.select_layer, **normalised}


def _clip_architecture(clip: ClipConfig) -> tuple[dict[str, Any], tuple[list[float], list[float]] | None]:
    if clip.architecture is not None and (clip.pretrained is None or is_hub_id(clip.pretrained)):
        return dict(clip.architecture), None
    try:
        folder = fetch(clip, weights=False)
    except storage.MissingWeightsError as error:
        raise ConfigError(
            f"`clip.pretrained`: {error}; or state its sizes with `clip.architecture` where only those are needed"
        ) from error
    return {**read_architecture(folder), **(clip.architecture or {})}, read_normalisation(folder)


def _load(model: ToVEVisionModel, tower: TowerConfig, weights_paths: dict[str, Path]) -> None:
    for part in tower.parts:
        if part not in weights_paths:
            logger.warning("tower: `%s` has random weights, because its `pretrained` is none", part)
        elif part == "clip":
            load_base(model, weights_paths[part])
        else:
            model.experts[part].load_pretrained(weights_paths[part])
