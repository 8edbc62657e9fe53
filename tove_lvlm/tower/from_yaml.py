"""Read a tower's YAML, without importing torch.

clip:                                             # or `base:`, which also takes what `experts` take
  pretrained: openai/clip-vit-large-patch14-336   # weights/sources.py: hub id | folder | file | package:... | none
  architecture: {hidden_size: 1024, ...}          # only where the sizes must be known without the folder
  select_layer: -2
fusion: {zero_init: true, expert_dropout: 0.1}
experts:
  - dinov2_l14_reg                                # of the catalogue (`tove experts`), with its weights
  - timm/convnext_base.clip_laion2b               # any backbone of timm, by name
  - {name: d, family: transformers, pretrained: facebook/dinov2-base}     # its config.json says the rest
  - {expert: dinov2_l14_reg, name: dino, image_size: 336, pretrained: /my/copy}
  - {name: depth, family: dense_vit, output: map, pretrained: shipped:miniature/depth}
  - {expert: dexined, pretrained: OWNER/NAME, revision: abc123, file: DexiNed.pth, sha256: 0a1b..., license: mit}
detached: []

See docs/design.md, "Configuration".
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import ConfigError, parse, present_names, read_yaml
from ..config.sources import WEIGHT_KEYS, WeightSource, is_hub_id, resolve_source
from ..config.tower import (
    BackboneConfig,
    ClipConfig,
    FusionConfig,
    TowerConfig,
    TowerExpertConfig,
    TowerYaml,
    check_names,
)
from ..experts.catalogue import resolve_entry
from ..experts.schema import EXPERT_CONFIGS, ExpertConfig, complete_fields, expert_config_class
from ..storage import MissingWeightsError
from ..weights.sources import fetch


def read_tower_yaml(
    path: str | Path, options: Sequence[str] = (), left_out: Mapping[str, Any] | None = None
) -> TowerConfig:
    """Read and check a tower's YAML; weight sources come out resolved, no weight is loaded.

    Args:
        path: The YAML, or `shipped:NAME`.
        options: `a.b=c` strings put over the file.
        left_out: Values of keys that the file does not have: of `config.trained.left_out` where trained weights are
            going to be loaded. Without it they have their defaults.

    Raises:
        ConfigError: Unknown key, family or field, wrong type, a source that does not exist, an expert named twice.
    """
    path = Path(_resolved(str(path), None, "tower"))
    raw = parse(TowerYaml, _filled(read_yaml(path, options), left_out or {}, path), where=str(path))
    experts = [_expert(entry, f"experts[{index}]", path) for index, entry in enumerate(raw.experts)]
    check_names([expert.name for expert in experts], raw.detached, str(path))
    return TowerConfig(
        base=_base(raw, path),
        experts=experts,
        fusion=raw.fusion,
        detached=raw.detached,
        expert_resample=raw.expert_resample,
    )


def _base(raw: TowerYaml, path: Path) -> ClipConfig | BackboneConfig:
    if (raw.clip is None) == (raw.base is None):
        found = "neither" if raw.clip is None else "both"
        raise ConfigError(f"{path}: {found} of `clip` and `base` is there; one of them says which encoder is enriched")
    if raw.clip is not None:
        return _clip(raw.clip, "clip", path)
    entry = dict(raw.base) if isinstance(raw.base, Mapping) else {"expert": raw.base}
    if "expert" not in entry and entry.get("family", "clip") == "clip":
        fields = {key: value for key, value in entry.items() if key != "family"}
        return _clip(parse(ClipConfig, fields, where=f"{path}: base"), "base", path)
    if "select_layer" in entry:
        raise ConfigError(f"{path}: `base.select_layer` is of a CLIP; the layer of another base is `base.layer`")
    input_size = entry.pop("input_size", None)
    encoder = _expert({**entry, "name": "base"}, "base", path)
    values = {item.name: getattr(encoder, item.name) for item in dataclasses.fields(encoder)}
    if not encoder.has_weights:
        raise ConfigError(f"{path}: `base.family` is `{encoder.fields['family']}`, which has no weights to enrich")
    return parse(BackboneConfig, {**values, "input_size": input_size}, where=f"{path}: base")


def _clip(clip: ClipConfig, key: str, path: Path) -> ClipConfig:
    clip = dataclasses.replace(clip, pretrained=_source(clip.pretrained, path, f"{key}.pretrained"))
    if clip.pretrained is None and clip.architecture is None:
        raise ConfigError(f"{path}: `{key}.pretrained` is none, so `{key}.architecture` must give the sizes")
    return clip


def _filled(written: dict[str, Any], left_out: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What was written, with what it leaves out; a `fusion` that is no block is left for the schema to refuse."""
    fusion = written.get("fusion") or {}
    if not left_out or not isinstance(fusion, Mapping):
        return written
    fusion = present_names(FusionConfig, fusion, "fusion", where=str(path))
    return {**left_out, **written, "fusion": {**left_out.get("fusion", {}), **fusion}}


def _expert(entry_or_name: str | Mapping[str, Any], where: str, path: Path) -> TowerExpertConfig:
    entry = resolve_entry(entry_or_name, where=f"{path}: {where}")
    if "pretrained" not in entry and _needs_weights(entry.get("family")):
        raise ConfigError(
            f"{path}: required key `{where}.pretrained` is missing; give a hub id, a file or a folder, or `none` for "
            "random weights"
        )
    weights = {key: entry.get(key) for key in WEIGHT_KEYS}
    parse(WeightSource, weights, where=f"{path}: {where}")
    weights["pretrained"] = _source(weights["pretrained"], path, f"{where}.pretrained")
    fields = {key: value for key, value in entry.items() if key not in WEIGHT_KEYS}
    if isinstance(fields.get("family"), str):
        try:
            expert_config_class(fields["family"])
        except ValueError as error:
            raise ConfigError(f"{path}: `{where}.family`: {error}") from error
    stating = _stating(fields, WeightSource(**weights), f"{path}: {where}")
    fields = complete_fields(fields, stating, f"{path}: {where}")
    return TowerExpertConfig(fields=fields, has_weights=expert_config_class(fields["family"]).has_weights, **weights)


def _stating(fields: Mapping[str, Any], weights: WeightSource, where: str) -> str | None:
    """Where a config.json, or the weight file itself, may state what the entry leaves out. The hub is asked only when
    it must be: for a network whose architecture is not given.
    """
    source, family = weights.pretrained, fields.get("family")
    if source is None or not isinstance(family, str):
        return source
    schema = expert_config_class(family)
    if schema.read_off_file:
        return _stating_file(schema, fields, weights, where)
    if not is_hub_id(source) or "architecture" in fields:
        return source
    if "architecture" not in {item.name for item in dataclasses.fields(schema)}:
        return source
    try:
        return str(fetch(weights, weights=False))
    except MissingWeightsError as error:
        raise ConfigError(f"{where}: {error}; or state `architecture`, where only the sizes are needed") from error


def _stating_file(
    schema: type[ExpertConfig], fields: Mapping[str, Any], weights: WeightSource, where: str
) -> str | None:
    if not schema.needs_file(fields):
        return weights.pretrained
    try:
        return str(fetch(weights))
    except MissingWeightsError as error:
        names = ", ".join(f"`{name}`" for name in schema.read_off_file)
        raise ConfigError(f"{where}: {error}; or state {names}, where only the sizes are needed") from error


def _needs_weights(family: Any) -> bool:
    """Of an unknown family it is not known; what is wrong with it is said later."""
    return not isinstance(family, str) or family not in EXPERT_CONFIGS or EXPERT_CONFIGS.get(family).has_weights


def _source(source: str | None, path: Path, key: str) -> str | None:
    if source is None or source.lower() == "none":
        return None
    return _resolved(source, path.resolve().parent, f"{path}: `{key}`")


def _resolved(source: str, base: Path | None, where: str) -> str:
    try:
        return resolve_source(source, base)
    except (MissingWeightsError, ConfigError) as error:
        raise ConfigError(f"{where}: {error}") from error
