"""What a tower's parts are, cost, and may be used for; which weights are missing.

Sizes are counted on the meta device; nothing is downloaded, and no weight is read but to compare a checksum.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..config.sources import WEIGHT_KEYS, WeightSource
from ..config.tower import BackboneConfig, ClipConfig, TowerConfig
from ..cost import Size
from ..experts import describe
from ..experts.info import NetworkInfo, count_network, make_expert_info, network_of
from ..licenses import commercial_use, terms_of
from ..weights.sources import WeightStatus, status
from .build import vision_config
from .configuration import ToVEVisionConfig
from .cost import measure_cost, tower_sizes
from .from_yaml import read_tower_yaml
from .modeling import ToVEVisionModel

CLIP_CODE_LICENSE = "apache-2.0"
"""Of transformers, whose CLIP it is."""
SUMMED = ("parameters", "gflops", "disk_bytes", "bf16_bytes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimingConfig:
    """Where and how a tower is timed."""

    device: str
    dtype: str
    batch_size: int
    repeats: int = 5
    """Timed forwards; the median is taken."""


def tower_inventory(
    path: str | Path, options: Sequence[str] = (), measure: TimingConfig | None = None, checksum: bool = False
) -> dict[str, Any]:
    """The parts of a tower's YAML with their cost, licences and weights.

    Args:
        path: The YAML.
        options: `a.b=c` strings put over it.
        measure: Build the tower with random weights and time it so; None counts only.
        checksum: Whether weights are compared with the `sha256` that is given, for which all bytes are read.

    Returns:
        Plain values. `parts`: `clip` (the base, whatever it is), each expert, `tove_fusion`, with the keys of
        `ExpertInfo.as_dict` and `weights` (a `WeightStatus`), `disk_bytes` (of what is here, else as float32),
        `detached`, `ms`.
        `total`: sums over what is run. `relative_to_clip`: the same as multiples of CLIP alone. `missing`: parts whose
        weights are not all here. `commercial`: of the whole.

    Raises:
        ConfigError: The YAML does not fit.
        ImportError: The library of an expert is not installed.
    """
    tower = read_tower_yaml(path, options)
    config = vision_config(tower)
    with torch.device("meta"):
        unloaded = ToVEVisionModel(config)
        sizes = tower_sizes(unloaded)
    times = {} if measure is None else _times(config, measure)
    rows = [_base_row(config, tower.base, sizes["clip"])]
    for section, entry in zip(tower.experts, config.experts, strict=True):
        name, detached = section.name, section.name in tower.detached
        network = count_network(entry) if detached else network_of(unloaded.experts[name].spec, sizes[name])
        row = make_expert_info(section.fields, section, network).as_dict()
        rows.append(row | {"detached": detached})
    rows.append(
        {"name": "tove_fusion", "kind": "fusion", **dataclasses.asdict(sizes["tove_fusion"]), "detached": False}
    )
    for row in rows:
        row["ms"] = times.get(row["name"])
        row["weights"] = _status(tower, row["name"], checksum)
        row["disk_bytes"] = (row["weights"] or {}).get("bytes") or row["float32_bytes"]
    total = _total(rows, times.get("tower"))
    return {
        "tower": str(path),
        "image_size": config.image_size,
        "visual_tokens": config.num_tokens,
        "width": config.hidden_size,
        "parts": rows,
        "total": total,
        "relative_to_clip": _relative(total, rows[0]),
        "missing": [row["name"] for row in rows if _is_missing(row["weights"])],
        "commercial": _commercial(rows),
        "measured": None if measure is None else dataclasses.asdict(measure),
    }


def _base_row(config: ToVEVisionConfig, base: ClipConfig | BackboneConfig, size: Size) -> dict[str, Any]:
    if isinstance(base, ClipConfig):
        return _clip_row(config, base, size)
    row = make_expert_info(base.fields, base, network_of(describe(config.base or {}), size)).as_dict()
    return row | {"name": "clip", "detached": False}


def _clip_row(config: ToVEVisionConfig, clip: ClipConfig, size: Size) -> dict[str, Any]:
    fields = config.clip_config or {}
    weights = {key: getattr(clip, key) for key in WEIGHT_KEYS}
    code = clip.code_license or CLIP_CODE_LICENSE
    licenses = [code, *([clip.license] if clip.pretrained else [])]
    layers, patch = fields["num_hidden_layers"], config.patch_size
    network = NetworkInfo(
        kind="clip",
        library="transformers",
        architecture=f"CLIP, {layers} layers of width {config.base_width}, patch {patch}",
        output="features",
        channels=config.base_width,
        grid=(config.side, config.side),
        **dataclasses.asdict(size),
    )
    return {
        "name": "clip",
        "about": "",
        "family": "clip",
        **dataclasses.asdict(network),
        "image_size": config.base_size,
        "mean": config.image_mean,
        "std": config.image_std,
        **weights,
        "code_license": code,
        "commercial": commercial_use(licenses),
        "terms": terms_of(licenses),
        "needs": None,
        "detached": False,
    }


def _status(tower: TowerConfig, name: str, checksum: bool) -> dict[str, Any] | None:
    sections: dict[str, WeightSource] = {"clip": tower.base, **{item.name: item for item in tower.experts}}
    if name not in sections:
        return None
    needless = any(expert.name == name and not expert.has_weights for expert in tower.experts)
    weights = WeightStatus(state="none needed") if needless else status(sections[name], checksum)
    return dataclasses.asdict(weights)


def _is_missing(weights: Mapping[str, Any] | None) -> bool:
    return weights is not None and weights["state"] not in ("present", "random", "none needed")


def _total(rows: list[dict[str, Any]], ms: float | None) -> dict[str, Any]:
    run = [row for row in rows if not row["detached"]]
    return {key: sum(row[key] for row in run) for key in SUMMED} | {"ms": ms}


def _relative(total: Mapping[str, Any], clip: Mapping[str, Any]) -> dict[str, float | None]:
    return {key: value / clip[key] if value is not None and clip[key] else None for key, value in total.items()}


def _commercial(rows: list[dict[str, Any]]) -> str:
    run = [row for row in rows if not row["detached"] and "commercial" in row]
    licenses = [row["code_license"] for row in run] + [row["license"] for row in run if row["pretrained"]]
    return commercial_use(licenses)


def _times(config: ToVEVisionConfig, setting: TimingConfig) -> dict[str, float]:
    """Milliseconds per image of each part and of the whole, random weights."""
    tower = ToVEVisionModel(config).to(setting.device, getattr(torch, setting.dtype)).eval()
    return {name: cost.ms for name, cost in measure_cost(tower, setting.batch_size, setting.repeats).items()}
