"""What an entry of a tower's `experts` list may hold, per family, checked without importing torch.

The base of the families' dataclasses (families/NAME/config.py): the architecture fields that fix the network's shape
and its input. Where the weights come from is not architecture and is handled by the tower's builder.
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
from ..config.ranges import number
from ..registry import FolderRegistry

FAMILIES = __name__.removesuffix("schema") + "families"
"""Package with a folder for each family: beside this module, also where both are files of an exported tower."""
EXPERT_CONFIGS: "FolderRegistry[type[ExpertConfig]]" = FolderRegistry("expert family", FAMILIES, "config")
"""Family name -> dataclass of its architecture fields."""

OUTPUTS = ("features", "map")
PLUGIN_GROUP = "tove_lvlm.experts"
"""Entry-point group of packages that bring experts."""


@dataclass(frozen=True, kw_only=True)
class Library:
    """A package that brings networks."""

    name: str
    """As an expert's class gives it in `library`."""
    module: str
    """What is imported."""
    extra: str | None
    """Extra of `tove-lvlm` that installs it; None where the package always needs it."""
    license: str
    """Of its code, by SPDX."""


THIS_PACKAGE = Library(name="this package", module="tove_lvlm", extra=None, license="apache-2.0")


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """What every expert has."""

    library: ClassVar[Library] = THIS_PACKAGE
    """Package whose networks the family's are."""
    has_weights: ClassVar[bool] = True
    """Whether the family has weights at all; one without needs no `pretrained`."""
    read_off_file: ClassVar[tuple[str, ...]] = ()
    """Fields that are read off the weight file itself where an entry leaves one of them out (`stated_by_file`)."""
    name: str
    """Name within the tower; lower case letters, digits and `_`."""
    family: str
    """One of the registered families."""
    output: str = field(default="features", metadata={"choices": OUTPUTS})
    """`features`: a feature grid, projected by the transfer MLP. `map`: a predicted map, read by a conv stem first."""
    image_size: int = field(default=224, metadata=number(low=1, high=2**16))
    """Side of the square input in pixels."""
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406], metadata=number())
    """Mean of the input normalisation over [0, 1] RGB."""
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225], metadata=number(above=0))
    """Standard deviation of the same."""
    channels: int | None = field(default=None, metadata=number(low=1, high=2**20))
    """Channels of what it gives; found on the meta device when left out."""
    grid: list[int] | None = field(default=None, metadata=number(low=1, high=2**16))
    """Height and width of what it gives for a square image; found with the channels."""

    def __post_init__(self):
        if not self.name.isidentifier() or self.name != self.name.lower() or self.name.startswith("_"):
            raise ConfigError(
                f"expert name `{self.name}` must be lower case letters, digits and `_`, and begin with a letter"
            )
        if self.grid is not None and len(self.grid) != 2:
            raise ConfigError(f"expert `{self.name}`: `grid` is {self.grid}; expected height and width")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ConfigError(
                f"expert `{self.name}`: `mean` and `std` need 3 numbers each; got {self.mean}, {self.std}"
            )

    @classmethod
    def stated_in(cls, folder: Path) -> dict[str, Any]:
        """The family's fields that a folder of weights states in its config.json; empty without one.

        Here by their own names, or in the layout of timm's folders on the hub. A family whose library writes another
        layout overrides this.

        Args:
            folder: With the weights.
        """
        if not (folder / "config.json").is_file():
            return {}
        config = storage.load_json(folder / "config.json")
        names = {item.name for item in dataclasses.fields(cls)} - {"name", "family"}
        stated = {key: config[key] for key in names if key in config}
        hub = config.get("pretrained_cfg") or {}
        for key in ("mean", "std"):
            if key not in stated and key in hub:
                stated[key] = list(hub[key])
        if "image_size" not in stated and "input_size" in hub:
            stated["image_size"] = hub["input_size"][-1]
        return stated

    @classmethod
    def stated_by_file(cls, entry: Mapping[str, Any], file: Path) -> dict[str, Any]:
        """The fields `read_off_file`, of a family that has such.

        Args:
            entry: The fields that are known.
            file: With the weights.
        """
        raise NotImplementedError

    @classmethod
    def needs_file(cls, entry: Mapping[str, Any]) -> bool:
        """Whether a field is left out that has to be read off the weight file."""
        return any(entry.get(name) is None for name in cls.read_off_file)


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
        schema, folder = EXPERT_CONFIGS.get(entry["family"]), Path(source)
        entry = {**schema.stated_in(folder if folder.is_dir() else folder.parent), **entry}
        if schema.needs_file(entry) and Path(source).is_file():
            checked = parse_expert(entry, where)
            try:
                entry |= schema.stated_by_file(checked, Path(source))
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from error
    return parse_expert(entry, where)
