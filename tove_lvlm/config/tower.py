"""A tower's YAML: CLIP, fusion and experts. How it is read: tower/from_yaml.py.

See docs/design.md, "Configuration".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from ..errors import ConfigError
from ..registry import nearest
from .parsing import Deprecated
from .ranges import number
from .sources import WeightSource

FUSION_KINDS = ("gated", "concat")
TRANSFERS = ("shared_out", "shared", "separate")
RESAMPLE_MODES = ("bicubic", "bilinear")
GATES = ("token", "token_and_expert", "image", "constant", "shuffled")
EARLIER: dict[str, Any] = {"transfer_scale": None, "transfer": "separate", "expert_resample": "bilinear"}
"""What every tower computed before there was a setting of that name."""
NOT_IN_OUTPUT: dict[str, Any] = {"affects_output": False}
"""Metadata of a field that does not decide what a trained tower computes, or only by the shapes of its weights. Where
trained weights are loaded, every other field must be what it was in training."""


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """The trainable part of the tower, `tove_fusion`. The values are our choice; the paper's are not known."""

    kind: str = field(default="gated", metadata={"choices": FUSION_KINDS})
    """`gated`: ToVE's gate and residual transfer. `concat`: the baseline of other projects, the experts' channels
    beside CLIP's, for the projector to mix; the tower's output is then wider than CLIP."""
    gate: str = field(default="token", metadata={"choices": GATES})
    """What the gate reads for a token of CLIP: that `token`; `token_and_expert`, also each expert's own token after its
    transfer (our choice); `image`, the mean of the picture's tokens, so that all of them are weighed alike, as by
    VisionWeaver and MoVA; `constant`, nothing: one learned distribution; `shuffled`, a control, the token of another
    place."""
    transfer: str = field(default="shared_out", metadata={"choices": TRANSFERS})
    """Of the MLP that brings an expert into the tokens. `shared_out`: the first layer is the expert's own, the second
    one for all, as in the paper. `shared`: the whole transfer, conv stem included, is one for all (our choice), for
    experts that give the same kind of output, such as depth networks of different domains; the gate alone then decides
    whom a token believes. `separate`: all is the expert's own, as in any tower saved without this key."""
    zero_init: bool = field(default=True, metadata=NOT_IN_OUTPUT)
    """The last layer of each transfer MLP starts at zero, so that step 0 is CLIP exactly."""
    transfer_scale: float | None = field(default=1.0, metadata=number(above=0))
    """What a transfer MLP's output of 1 means, in units of the token's own root mean square. Narrow MLPs that start at
    zero and train for few steps want more. None adds the output as it is, whatever the size of the tokens."""
    mlp_hidden: int | None = field(default=None, metadata=number(low=1, high=2**20, **NOT_IN_OUTPUT))
    """Hidden width of the transfer MLPs; that of CLIP when left out."""
    gate_hidden: int | None = field(default=None, metadata=number(low=1, high=2**20, **NOT_IN_OUTPUT))
    """Hidden width of the gate; a quarter of CLIP's when left out."""
    temperature: float = field(default=1.0, metadata=number(above=0))
    """Divides the gate's logits."""
    gate_noise: float = field(default=0.0, metadata=number(low=0, **NOT_IN_OUTPUT))
    """Standard deviation of the noise on the logits, in training only."""
    expert_dropout: float = field(default=0.1, metadata=number(low=0, below=1, **NOT_IN_OUTPUT))
    """Probability that an expert is masked at the gate for an image, in training only."""
    stem_width: int = field(default=256, metadata=number(low=8, high=2**16, **NOT_IN_OUTPUT))
    """Channels that a conv stem gives for an expert with output `map`."""

    DEPRECATED: ClassVar = {"gate_input": Deprecated(renamed="gate", values={"tokens": "token"})}

    def __post_init__(self) -> None:
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
    select_layer: int = field(default=-2, metadata=number(low=-1000, high=1000))
    """CLIP layer whose patch tokens are used, as an index of its hidden states (LLaVA's default)."""
    input_size: int | None = field(default=None, metadata=number(low=1, high=2**16))
    """Side of the images that the tower is given, a multiple of the token grid's; CLIP's own when left out. Pays where
    experts want more pixels than CLIP (518 and up): they are no longer made from CLIP's few."""
    image_mean: list[float] | None = field(default=None, metadata=number())
    """Mean of the tower's input; that of the CLIP's own preprocessor when left out."""
    image_std: list[float] | None = field(default=None, metadata=number(above=0))
    """Standard deviation of the same."""


@dataclass(frozen=True, kw_only=True)
class TowerExpertConfig(WeightSource):
    """One expert: its architecture and where its weights come from."""

    fields: dict[str, Any]
    """Of its family (experts/schema.py), complete."""
    has_weights: bool = True
    """Whether there is anything to load; an edge filter has nothing."""

    @property
    def name(self) -> str:
        """Name within the tower."""
        name: str = self.fields["name"]
        return name


@dataclass(frozen=True, kw_only=True)
class BackboneConfig(TowerExpertConfig):
    """A base encoder that is no CLIP, as an expert is given; the tower's images are normalised as its own."""

    input_size: int | None = field(default=None, metadata=number(low=1, high=2**16))
    """As of a CLIP."""


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """A tower's YAML. Paths in it are already resolved."""

    base: ClipConfig | BackboneConfig
    """The frozen encoder whose tokens are enriched."""
    experts: list[TowerExpertConfig]
    fusion: FusionConfig = field(default_factory=FusionConfig)
    detached: list[str] = field(default_factory=list)
    """Experts that the tower has but does not run."""
    expert_resample: str = field(default="bicubic", metadata={"choices": RESAMPLE_MODES})
    """How the tower's pixels are brought to an expert's size. Bicubic is nearer to what most experts' own processors
    do (benchmarks/pixel_path.py); towers saved without this key are bilinear."""

    @property
    def parts(self) -> dict[str, WeightSource]:
        """`clip`, which is the base whatever it is, and each expert that has weights and is not detached, by name."""
        attached = [expert for expert in self.experts if expert.name not in self.detached and expert.has_weights]
        return {"clip": self.base, **{expert.name: expert for expert in attached}}

    @property
    def without_experts(self) -> "TowerConfig":
        """The base alone, what ToVE is compared with."""
        return replace(self, experts=[], detached=[])


@dataclass(frozen=True, kw_only=True)
class TowerYaml:
    """The file as it is written: an expert, or another base than a CLIP, is a name of the catalogue or a block."""

    clip: ClipConfig | None = None
    base: str | dict[str, Any] | None = None
    """In place of `clip`: with the `family` of an expert whose features are a square grid, any image encoder; without
    `family`, or with `family: clip`, the same as `clip`."""
    experts: list[str | dict[str, Any]] = field(default_factory=list)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    detached: list[str] = field(default_factory=list)
    expert_resample: str = field(default="bicubic", metadata={"choices": RESAMPLE_MODES})


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
