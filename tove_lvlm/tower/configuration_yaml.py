"""A tower's YAML as typed configuration, checked without importing torch.

clip:
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ..config import ConfigError, Deprecated, parse, read_yaml
from ..experts.catalogue import resolve_entry
from ..experts.schema import EXPERT_CONFIGS, complete_fields, expert_config_class
from ..registry import nearest
from ..storage import MissingWeightsError
from ..weights.sources import WEIGHT_KEYS, WeightSource, fetch, is_hub_id, resolve_source

FUSION_KINDS = ("gated", "concat")
GATES = ("token", "shuffled", "constant")
NOT_IN_OUTPUT = {"affects_output": False}
"""Metadata of a field that does not decide what a trained tower computes, or only by the shapes of its weights. Where
trained weights are loaded, every other field must be what it was in training."""


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """The trainable part of the tower, `tove_fusion`. The values are our choice; the paper's are not known."""

    kind: str = field(default="gated", metadata={"choices": FUSION_KINDS})
    """`gated`: ToVE's gate and residual transfer. `concat`: the baseline of other projects, the experts' channels
    beside CLIP's, for the projector to mix; the tower's output is then wider than CLIP."""
    gate: str = field(default="token", metadata={"choices": GATES})
    """What the gate reads for a token: that `token`; for ablations the token of another place (`shuffled`) or nothing
    (`constant`: one learned distribution for every token)."""
    zero_init: bool = field(default=True, metadata=NOT_IN_OUTPUT)
    """The last layer of each transfer MLP starts at zero, so that step 0 is CLIP exactly."""
    transfer_scale: float | None = 1.0
    """What a transfer MLP's output of 1 means, in units of the token's own root mean square. Narrow MLPs that start at
    zero and train for few steps want more. None adds the output as it is, whatever the size of the tokens."""
    mlp_hidden: int | None = field(default=None, metadata=NOT_IN_OUTPUT)
    """Hidden width of the transfer MLPs; that of CLIP when left out."""
    gate_hidden: int | None = field(default=None, metadata=NOT_IN_OUTPUT)
    """Hidden width of the gate; a quarter of CLIP's when left out."""
    temperature: float = 1.0
    """Divides the gate's logits."""
    gate_noise: float = field(default=0.0, metadata=NOT_IN_OUTPUT)
    """Standard deviation of the noise on the logits, in training only."""
    expert_dropout: float = field(default=0.1, metadata=NOT_IN_OUTPUT)
    """Probability that an expert is masked at the gate for an image, in training only."""
    stem_width: int = field(default=256, metadata=NOT_IN_OUTPUT)
    """Channels that a conv stem gives for an expert with output `map`."""

    DEPRECATED: ClassVar = {"gate_input": Deprecated(renamed="gate", values={"tokens": "token"})}

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ConfigError(f"`temperature` is {self.temperature}; expected above 0")
        if self.transfer_scale is not None and self.transfer_scale <= 0:
            raise ConfigError(f"`transfer_scale` is {self.transfer_scale}; expected above 0, or none")
        if self.gate_noise < 0:
            raise ConfigError(f"`gate_noise` is {self.gate_noise}; expected 0 or above")
        if not 0 <= self.expert_dropout < 1:
            raise ConfigError(f"`expert_dropout` is {self.expert_dropout}; expected 0 <= p < 1")
        for key in ("mlp_hidden", "gate_hidden", "stem_width"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"`{key}` is {value}; expected at least 1")
        if self.stem_width % 8:
            raise ConfigError(f"`stem_width` is {self.stem_width}; expected a multiple of 8")


@dataclass(frozen=True, kw_only=True)
class ClipConfig(WeightSource):
    """The frozen CLIP whose tokens are enriched: where its weights are (a CLIPModel's or its vision part's), and how
    it is used.
    """

    architecture: dict[str, Any] | None = None
    """Fields of `CLIPVisionConfig`; needed with `pretrained: none`, and to build the tower where a hub id cannot be
    looked up."""
    select_layer: int = -2
    """CLIP layer whose patch tokens are used, as an index of its hidden states (LLaVA's default)."""
    input_size: int | None = None
    """Side of the images that the tower is given, a multiple of the token grid's; CLIP's own when left out. Pays where
    experts want more pixels than CLIP (518 and up): they are no longer made from CLIP's few."""
    image_mean: list[float] | None = None
    """Mean of the tower's input; that of the CLIP's own preprocessor when left out."""
    image_std: list[float] | None = None
    """Standard deviation of the same."""


@dataclass(frozen=True, kw_only=True)
class TowerExpertConfig(WeightSource):
    """One expert: its architecture and where its weights come from."""

    fields: dict[str, Any]
    """Of its family (experts/schema.py), complete."""

    @property
    def name(self) -> str:
        """Name within the tower."""
        name: str = self.fields["name"]
        return name

    @property
    def has_weights(self) -> bool:
        """Whether there is anything to load; an edge filter has nothing."""
        return expert_config_class(self.fields["family"]).has_weights


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """A tower's YAML. Paths in it are already resolved."""

    clip: ClipConfig
    experts: list[TowerExpertConfig]
    fusion: FusionConfig = field(default_factory=FusionConfig)
    detached: list[str] = field(default_factory=list)
    """Experts that the tower has but does not run."""

    @property
    def parts(self) -> dict[str, WeightSource]:
        """`clip` and each expert that has weights and is not detached, by name."""
        attached = [expert for expert in self.experts if expert.name not in self.detached and expert.has_weights]
        return {"clip": self.clip, **{expert.name: expert for expert in attached}}


@dataclass(frozen=True, kw_only=True)
class _TowerYaml:
    clip: ClipConfig
    experts: list[str | dict[str, Any]] = field(default_factory=list)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    detached: list[str] = field(default_factory=list)


def read_tower_yaml(path: str | Path, options: Sequence[str] = ()) -> TowerConfig:
    """Read and check a tower's YAML; weight sources come out resolved, no weight is loaded.

    Args:
        path: The YAML, or `shipped:NAME`.
        options: `a.b=c` strings put over the file.

    Raises:
        ConfigError: Unknown key, family or field, wrong type, a source that does not exist, an expert named twice.
    """
    path = Path(_resolved(str(path), None, "tower"))
    raw = parse(_TowerYaml, read_yaml(path, options), where=str(path))
    clip = dataclasses.replace(raw.clip, pretrained=_source(raw.clip.pretrained, path, "clip.pretrained"))
    if clip.pretrained is None and clip.architecture is None:
        raise ConfigError(f"{path}: `clip.pretrained` is none, so `clip.architecture` must give the sizes")
    experts = [_expert(entry, index, path) for index, entry in enumerate(raw.experts)]
    check_names([expert.name for expert in experts], raw.detached, str(path))
    return TowerConfig(clip=clip, experts=experts, fusion=raw.fusion, detached=raw.detached)


def check_names(names: Sequence[str], detached: Sequence[str], where: str) -> None:
    """Each expert once, and only known ones detached.

    Raises:
        ConfigError: Names the expert.
    """
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    if repeated:
        raise ConfigError(f"{where}: experts named twice: {', '.join(repeated)}; give each its own `name`")
    for name in detached:
        if name not in names:
            raise ConfigError(f"{where}: `detached` names the expert `{name}`; {nearest(name, names)}")


def _expert(entry_or_name: str | Mapping[str, Any], index: int, path: Path) -> TowerExpertConfig:
    where = f"experts[{index}]"
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
    return TowerExpertConfig(fields=complete_fields(fields, stating, f"{path}: {where}"), **weights)


def _stating(fields: Mapping[str, Any], weights: WeightSource, where: str) -> str | None:
    """Where a config.json may state what the entry leaves out. The hub is asked only when it must be: for a network
    whose architecture is not given.
    """
    source, family = weights.pretrained, fields.get("family")
    if source is None or not is_hub_id(source) or not isinstance(family, str) or "architecture" in fields:
        return source
    if "architecture" not in {item.name for item in dataclasses.fields(expert_config_class(family))}:
        return source
    try:
        return str(fetch(weights, weights=False))
    except MissingWeightsError as error:
        raise ConfigError(f"{where}: {error}; or state `architecture`, where only the sizes are needed") from error


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
