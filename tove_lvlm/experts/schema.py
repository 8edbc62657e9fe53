"""What an entry of a tower's `experts` list may hold, per family, checked without importing torch.

One dataclass for each family: the architecture fields that fix the network's shape and its input. Where the weights
come from is not architecture and is handled by the tower's builder.
"""

import dataclasses
import functools
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from .. import storage
from ..config import ConfigError, parse
from ..registry import Registry

EXPERT_CONFIGS: "Registry[type[ExpertConfig]]" = Registry("expert family")
"""Family name -> dataclass of its architecture fields."""

OUTPUTS = ("features", "map")
PLUGIN_GROUP = "tove_lvlm.experts"
"""Entry-point group of packages that bring experts."""


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """What every expert has."""

    has_weights: ClassVar[bool] = True
    """Whether the family has weights at all; one without needs no `pretrained`."""
    name: str
    """Name within the tower; lower case letters, digits and `_`."""
    family: str
    """One of the registered families."""
    output: str = field(default="features", metadata={"choices": OUTPUTS})
    """`features`: a feature grid, projected by the transfer MLP. `map`: a predicted map, read by a conv stem first."""
    image_size: int = 224
    """Side of the square input in pixels."""
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    """Mean of the input normalisation over [0, 1] RGB."""
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    """Standard deviation of the same."""
    channels: int | None = None
    """Channels of what it gives; found on the meta device when left out."""
    grid: list[int] | None = None
    """Height and width of what it gives for a square image; found with the channels."""

    def __post_init__(self):
        if not self.name.isidentifier() or self.name != self.name.lower() or self.name.startswith("_"):
            raise ConfigError(
                f"expert name `{self.name}` must be lower case letters, digits and `_`, and begin with a letter"
            )
        if self.image_size < 1:
            raise ConfigError(f"expert `{self.name}`: `image_size` is {self.image_size}; expected at least 1")
        if self.channels is not None and self.channels < 1:
            raise ConfigError(f"expert `{self.name}`: `channels` is {self.channels}; expected at least 1")
        if self.grid is not None and (len(self.grid) != 2 or min(self.grid) < 1):
            raise ConfigError(
                f"expert `{self.name}`: `grid` is {self.grid}; expected height and width, at least 1 each"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(
                f"expert `{self.name}`: `mean` and `std` need 3 numbers each, std above 0; got {self.mean}, {self.std}"
            )


@EXPERT_CONFIGS.register("dense_vit")
@dataclass(frozen=True, kw_only=True)
class DenseViTConfig(ExpertConfig):
    """A plain ViT with a per-patch linear head that predicts a full-resolution map."""

    output: str = field(default="map", metadata={"choices": OUTPUTS})
    width: int
    depth: int
    heads: int
    patch_size: int
    channels: int
    """Channels of the predicted map."""
    mlp_ratio: float = 4.0

    def __post_init__(self):
        super().__post_init__()
        if min(self.width, self.depth, self.heads, self.patch_size, self.channels) < 1 or self.width % self.heads:
            raise ConfigError(
                f"expert `{self.name}`: width, depth, heads, patch_size and channels must be at least 1 and width a "
                f"multiple of heads; got {self.width}, {self.depth}, {self.heads}, {self.patch_size}, {self.channels}"
            )
        if self.image_size % self.patch_size:
            raise ConfigError(
                f"expert `{self.name}`: `image_size` {self.image_size} is not a multiple of `patch_size` "
                f"{self.patch_size}"
            )


@EXPERT_CONFIGS.register("timm")
@dataclass(frozen=True, kw_only=True)
class TimmConfig(ExpertConfig):
    """Any timm backbone, by name."""

    output: str = field(default="features", metadata={"choices": ("features",)})
    architecture: str
    """timm's model name, with or without the tag of its weights."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """Further arguments of `timm.create_model`."""
    out_index: int = -1
    """Which of the backbone's intermediate features is used; -1 is the last."""


@EXPERT_CONFIGS.register("open_clip")
@dataclass(frozen=True, kw_only=True)
class OpenCLIPConfig(ExpertConfig):
    """The visual trunk of any open_clip model, by name."""

    output: str = field(default="features", metadata={"choices": ("features",)})
    architecture: str | dict[str, Any]
    """open_clip's name of the model, or the `model_cfg` of an open_clip_config.json, read from a folder."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """Put over the model's `vision_cfg`."""
    quick_gelu: bool | None = None
    """Whether the weights were trained with QuickGELU (OpenAI's were); as the model's configuration when left out."""
    out_index: int = -1
    """Which of the trunk's intermediate features is used; -1 is the last."""


@EXPERT_CONFIGS.register("transformers")
@dataclass(frozen=True, kw_only=True)
class TransformersConfig(ExpertConfig):
    """A vision encoder of transformers; with a local folder everything is read from its config.json."""

    output: str = field(default="features", metadata={"choices": ("features",)})
    architecture: dict[str, Any]
    """The encoder's config, `model_type` included."""
    layer: int | None = None
    """Index of the hidden state that is used; none takes the encoder's own last hidden state."""


@EXPERT_CONFIGS.register("depth")
@dataclass(frozen=True, kw_only=True)
class DepthConfig(ExpertConfig):
    """A depth estimator of transformers; with a local folder everything is read from its config.json."""

    output: str = field(default="map", metadata={"choices": OUTPUTS})
    """`map`: the predicted depth. `features`: what the neck hands to the head."""
    architecture: dict[str, Any]
    """The estimator's config, `model_type` included (`dpt`, `depth_anything`)."""


@EXPERT_CONFIGS.register("normals_from_depth")
@dataclass(frozen=True, kw_only=True)
class NormalsFromDepthConfig(ExpertConfig):
    """Surface normals computed from the map of a depth expert, whose weights are all that it has."""

    output: str = field(default="map", metadata={"choices": ("map",)})
    depth: dict[str, Any]
    """`family` and fields of the depth expert; name and input are this entry's own."""
    field_of_view: float = 60.0
    """Horizontal angle of the camera in degrees."""
    inverse: bool = True
    """Whether the map is an inverse depth (near is large), as relative estimators give it."""
    depth_range: float = 4.0
    """How many times farther than the nearest point the farthest is, for a map without units. Our choice."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.field_of_view < 180 or self.depth_range <= 1:
            raise ConfigError(
                f"expert `{self.name}`: `field_of_view` must be between 0 and 180 degrees and `depth_range` above 1; "
                f"got {self.field_of_view}, {self.depth_range}"
            )
        shared = {key: getattr(self, key) for key in ("name", "image_size", "mean", "std")}
        parse_expert({**self.depth, **shared}, where=f"expert `{self.name}`, `depth`")


@EXPERT_CONFIGS.register("normal_bae")
@dataclass(frozen=True, kw_only=True)
class NormalBaeConfig(ExpertConfig):
    """NormalBae's surface normals; `features` are the decoder's at an eighth of the image."""

    output: str = field(default="map", metadata={"choices": OUTPUTS})
    image_size: int = 384


@EXPERT_CONFIGS.register("dexined")
@dataclass(frozen=True, kw_only=True)
class DexiNedConfig(ExpertConfig):
    """DexiNed's edges; `features` are its last block's, at a sixteenth of the image."""

    output: str = field(default="map", metadata={"choices": OUTPUTS})
    image_size: int = 352
    mean: list[float] = field(default_factory=lambda: [123.68 / 255, 116.779 / 255, 103.939 / 255])
    std: list[float] = field(default_factory=lambda: [1 / 255, 1 / 255, 1 / 255])


@EXPERT_CONFIGS.register("hed")
@dataclass(frozen=True, kw_only=True)
class HEDConfig(ExpertConfig):
    """HED's edges; `features` are its last stage's, at a sixteenth of the image."""

    output: str = field(default="map", metadata={"choices": OUTPUTS})
    mean: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    std: list[float] = field(default_factory=lambda: [1 / 255, 1 / 255, 1 / 255])


@EXPERT_CONFIGS.register("edge_filter")
@dataclass(frozen=True, kw_only=True)
class EdgeFilterConfig(ExpertConfig):
    """A classical edge filter: nothing is learned, there are no weights."""

    has_weights: ClassVar[bool] = False
    output: str = field(default="map", metadata={"choices": ("map",)})
    filter: str = field(metadata={"choices": ("canny", "sobel")})
    mean: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    std: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0])
    low: float = 0.1
    """Canny's lower threshold on the gradient."""
    high: float = 0.2
    """Canny's upper threshold."""
    hysteresis: bool = True
    """Whether Canny keeps weak edges only where they touch strong ones; else they are 0.5 and strong ones 1."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.low <= self.high:
            raise ConfigError(f"expert `{self.name}`: thresholds need 0 < `low` <= `high`; got {self.low}, {self.high}")


@EXPERT_CONFIGS.register("text_map")
@dataclass(frozen=True, kw_only=True)
class TextMapConfig(ExpertConfig):
    """PP-OCR's text detector; `features` are its neck's, at a quarter of the image."""

    output: str = field(default="map", metadata={"choices": OUTPUTS})
    image_size: int = 672
    mean: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    std: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])


def expert_config_class(family: str) -> type[ExpertConfig]:
    """The dataclass of a family's architecture fields; installed plugins are looked through for one not known yet.

    Raises:
        ValueError: No such family.
    """
    if family not in EXPERT_CONFIGS:
        load_plugins()
    return EXPERT_CONFIGS.get(family)


@functools.cache
def load_plugins() -> None:
    """Import what other packages registered under the entry-point group `tove_lvlm.experts`.

    Each entry point names a module, or a class in one, that calls `register_expert` when it is imported.

    Raises:
        ConfigError: One of them cannot be imported; names the entry point.
    """
    for point in importlib.metadata.entry_points(group=PLUGIN_GROUP):
        try:
            point.load()
        except Exception as error:  # whatever a plugin's own code raises
            raise ConfigError(
                f"the expert plugin `{point.name} = {point.value}` cannot be imported: {type(error).__name__}: {error}"
            ) from error


def parse_expert(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check one expert's architecture fields and complete them with the family's defaults.

    Args:
        entry: `name`, `family` and the fields of that family.
        where: File or place named in the message.

    Returns:
        Plain dictionary, ready for the tower's config.

    Raises:
        ConfigError: Unknown family or field, or a value that does not fit.
    """
    for key in ("name", "family"):
        if not isinstance(entry.get(key), str):
            raise ConfigError(f"{where}: required key `{key}` of an expert is missing or no string: {dict(entry)}")
    try:
        schema = expert_config_class(entry["family"])
    except ValueError as error:
        raise ConfigError(f"{where}: expert `{entry['name']}`: {error}") from error
    return dataclasses.asdict(parse(schema, entry, where=f"{where}: expert `{entry['name']}`"))


def complete_fields(entry: Mapping[str, Any], source: str | None, where: str) -> dict[str, Any]:
    """As `parse_expert`, with what the weights' own config.json states for fields that the entry leaves out.

    Args:
        entry: `name`, `family` and fields as a YAML gives them.
        source: Resolved weight source; only a local folder (or a file's) is looked at.
        where: File or place named in the message.

    Raises:
        ConfigError: As for `parse_expert`.
    """
    entry = dict(entry)
    if source is not None and isinstance(entry.get("family"), str) and entry["family"] in EXPERT_CONFIGS:
        folder = Path(source) if Path(source).is_dir() else Path(source).parent
        if entry["family"] == "open_clip" and (folder / "open_clip_config.json").is_file():
            entry = {**_stated_by_open_clip(storage.load_json(folder / "open_clip_config.json")), **entry}
        elif (folder / "config.json").is_file():
            config = storage.load_json(folder / "config.json")
            if entry["family"] in ("transformers", "depth"):
                stated = _stated_by_transformers(config, folder / "preprocessor_config.json")
            else:
                stated = _stated_fields(entry["family"], config)
            entry = {**stated, **entry}
    return parse_expert(entry, where)


def _stated_fields(family: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The family's fields in a config.json: by their own names, or in the layout of timm's folders on the hub."""
    names = {item.name for item in dataclasses.fields(EXPERT_CONFIGS.get(family))} - {"name", "family"}
    stated = {key: config[key] for key in names if key in config}
    hub = config.get("pretrained_cfg") or {}
    for key in ("mean", "std"):
        if key not in stated and key in hub:
            stated[key] = list(hub[key])
    if "image_size" not in stated and "input_size" in hub:
        stated["image_size"] = hub["input_size"][-1]
    return stated


def _stated_by_open_clip(config: Mapping[str, Any]) -> dict[str, Any]:
    """What open_clip's `save_for_hf` writes: the model's configuration and how its images are normalised."""
    model, preprocess = config.get("model_cfg", config), config.get("preprocess_cfg") or {}
    stated: dict[str, Any] = {
        "architecture": {key: model[key] for key in ("embed_dim", "vision_cfg", "quick_gelu") if key in model}
    }
    size = model.get("vision_cfg", {}).get("image_size")
    if isinstance(size, int):
        stated["image_size"] = size
    return {**stated, **{key: list(preprocess[key]) for key in ("mean", "std") if key in preprocess}}


def _stated_by_transformers(config: Mapping[str, Any], preprocessor: Path) -> dict[str, Any]:
    """A vision encoder's config.json, or the vision part of a larger model's, and how its images are normalised."""
    vision = config.get("vision_config", config)
    beside = ("architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path")
    stated: dict[str, Any] = {"architecture": {key: value for key, value in vision.items() if key not in beside}}
    processing = storage.load_json(preprocessor) if preprocessor.is_file() else {}
    size = vision.get("image_size") or (processing.get("size") or {}).get("height")  # a depth estimator's is there
    if isinstance(size, int):
        stated["image_size"] = size
    for key, stated_key in (("mean", "image_mean"), ("std", "image_std")):
        if stated_key in processing:
            stated[key] = list(processing[stated_key])
    return stated
