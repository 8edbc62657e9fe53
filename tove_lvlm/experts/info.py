"""What an expert declares, in one place: network, input, weights, licences, size.

It is put together from three things that stay apart: the architecture (`ExpertSpec`), the weights (`WeightSource`), and
the recipe, a tower's YAML, which is not in it. The figures of the catalogue's names are counted once and shipped
(catalogue/sizes.json, written by scripts/count_experts.py), so that a list of them imports no network.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config import ConfigError, UserError, parse
from ..config.sources import WEIGHT_KEYS, WeightSource
from ..licenses import commercial_use, terms_of
from .catalogue import FOLDER, catalogue, resolve_entry
from .libraries import code_license, install_hint
from .schema import parse_expert

if TYPE_CHECKING:
    from ..cost import Size
    from .base import ExpertSpec

SIZES_FILE = FOLDER / "sizes.json"


@dataclass(frozen=True, kw_only=True)
class NetworkInfo:
    """What is found by building an expert's network once: what it gives, and how large it is."""

    kind: str
    """`embedding` or `low_level`."""
    library: str
    """Package whose network it is."""
    architecture: str
    """The library's name of it."""
    output: str
    """`features` or `map`."""
    channels: int
    """Feature width, or the channels of the map."""
    grid: tuple[int, int]
    """Height and width of what it gives for its image size."""
    parameters: int
    gflops: float
    """10^9 floating point operations per image."""
    bf16_bytes: int
    """Memory of the weights in bfloat16."""
    float32_bytes: int
    """Size of the weights in float32, as most are published."""


@dataclass(frozen=True, kw_only=True)
class ExpertInfo:
    """An expert, as `tove experts` and a tower's card speak of it."""

    name: str
    """In the catalogue, or within the tower."""
    about: str
    """A line for people; empty for an expert that is not of the catalogue."""
    fields: Mapping[str, Any]
    """Its family's architecture fields, complete: among them image size, mean and std of the input."""
    weights: WeightSource
    network: NetworkInfo | None
    """None where its library is not installed and the figures are not shipped."""
    problem: str | None = None
    """Why `network` is None."""

    @property
    def code_license(self) -> str | None:
        """Licence of the code: as stated with the weights, else that of the library."""
        explicit = self.weights.code_license
        return explicit or (code_license(self.network.library) if self.network else None)

    @property
    def commercial(self) -> str:
        """Whether code and weights may be used commercially: `yes`, `no` or `unknown`."""
        weights_license = [self.weights.license] if self.weights.pretrained is not None else []
        return commercial_use([self.code_license, *weights_license])

    @property
    def terms(self) -> list[str]:
        """What its licences say beside yes and no."""
        weights_license = [self.weights.license] if self.weights.pretrained is not None else []
        return terms_of([self.code_license, *weights_license])

    @property
    def needs(self) -> str | None:
        """The command that installs its library, where that is not installed."""
        return install_hint(self.network.library) if self.network else self.problem

    def as_dict(self) -> dict[str, Any]:
        """Plain and flat, for JSON; what is not known is None."""
        network = dataclasses.asdict(self.network) if self.network else dict.fromkeys(_fields(NetworkInfo))
        values = {"name": self.name, "about": self.about, "family": self.fields["family"]}
        inputs = {key: self.fields[key] for key in ("image_size", "mean", "std")}
        weights = dataclasses.asdict(self.weights) | {"code_license": self.code_license}
        weights = {key: weights[key] for key in WEIGHT_KEYS}
        return {
            **values,
            **network,
            **inputs,
            **weights,
            "commercial": self.commercial,
            "terms": self.terms,
            "needs": self.needs,
        }


def _fields(schema: type) -> list[str]:
    return [item.name for item in dataclasses.fields(schema)]


def expert_info(entry_or_name: str | Mapping[str, Any], where: str = "expert") -> ExpertInfo:
    """What an expert declares.

    Args:
        entry_or_name: A name of the catalogue, `timm/NAME`, `open_clip/NAME/TAG`, or an entry of a tower's YAML.
        where: Named in messages.

    Raises:
        ConfigError: No such expert, or a key that does not fit.
        ImportError: A library's own table is asked and the library is not installed.
    """
    entry = resolve_entry(entry_or_name, where)
    about = catalogue().get(entry_or_name, {}).get("about", "") if isinstance(entry_or_name, str) else ""
    weights = _weights(entry, where)
    fields = parse_expert({key: value for key, value in entry.items() if key not in WEIGHT_KEYS}, where)
    problem = None
    try:
        network = shipped_network(fields) or count_network(fields)
    except ImportError as error:
        network, problem = None, str(error)
    return make_expert_info(fields, weights, network, about=about, problem=problem)


def _listed(name: str) -> ExpertInfo:
    """As `expert_info`, and a network that this version of its library cannot build does not spoil the list."""
    try:
        return expert_info(name, "catalogue")
    except ConfigError as error:
        entry = resolve_entry(name, "catalogue")
        stated = {key: value for key, value in entry.items() if key not in WEIGHT_KEYS}
        fields, weights = parse_expert(stated, "catalogue"), _weights(entry, "catalogue")
        return make_expert_info(fields, weights, None, about=catalogue()[name]["about"], problem=str(error))


def make_expert_info(
    fields: Mapping[str, Any],
    weights: WeightSource,
    network: NetworkInfo | None,
    about: str = "",
    problem: str | None = None,
) -> ExpertInfo:
    """The declaration of an expert whose parts are known.

    Args:
        fields: The family's architecture fields, complete.
        weights: Where they come from, and on what terms.
        network: What was counted.
        about: A line for people.
        problem: Why there is no `network`.
    """
    return ExpertInfo(
        name=fields["name"],
        about=about,
        fields=fields,
        weights=weights,
        network=network,
        problem=problem,
    )


def _weights(entry: Mapping[str, Any], where: str) -> WeightSource:
    keys = {key: entry.get(key) for key in WEIGHT_KEYS}
    if isinstance(keys["pretrained"], str) and keys["pretrained"].lower() == "none":
        keys["pretrained"] = None
    return parse(WeightSource, keys, where)


def count_network(fields: Mapping[str, Any]) -> NetworkInfo:
    """Build an expert on the meta device and count it.

    Args:
        fields: The family's architecture fields, complete.

    Raises:
        ImportError: Its library is not installed.
        ConfigError: The network cannot be built so.
    """
    import torch

    from ..cost import size_of
    from .base import build_expert

    with torch.device("meta"):
        expert = build_expert(fields)
        size = size_of(expert, torch.zeros(1, 3, fields["image_size"], fields["image_size"]))
    return network_of(expert.spec, size)


def network_of(spec: "ExpertSpec", size: "Size") -> NetworkInfo:
    """What an expert's spec and its counted size say together."""
    return NetworkInfo(
        kind=spec.kind,
        library=spec.library,
        architecture=spec.architecture,
        output=spec.output,
        channels=spec.channels,
        grid=(spec.grid[0], spec.grid[1]),
        **dataclasses.asdict(size),
    )


def measure_network(fields: Mapping[str, Any], device: str, dtype: str, batch_size: int, repeats: int = 5) -> float:
    """Milliseconds per image of an expert's forward, with random weights.

    Args:
        fields: The family's architecture fields, complete.
        device: As torch names it.
        dtype: `float32`, `bfloat16` or `float16`.
        batch_size: Images of a forward.
        repeats: Timed forwards; their median is taken.

    Raises:
        ImportError: Its library is not installed.
    """
    import torch

    from ..cost import ms_per_image
    from .base import build_expert

    expert = build_expert(fields).to(device, getattr(torch, dtype))
    pixels_B3HW = torch.rand(batch_size, 3, fields["image_size"], fields["image_size"])
    return ms_per_image(expert, pixels_B3HW.to(device, getattr(torch, dtype)), repeats)


def shipped_network(fields: Mapping[str, Any]) -> NetworkInfo | None:
    """The counted figures that are shipped for exactly these fields, whatever the expert's name; None without such."""
    row = _shipped().get(fields_key(fields))
    return None if row is None else NetworkInfo(**{**row, "grid": tuple(row["grid"])})


def fields_key(fields: Mapping[str, Any]) -> str:
    """Identifies architecture fields, the name apart."""
    text = json.dumps({key: value for key, value in fields.items() if key != "name"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def _shipped() -> dict[str, dict[str, Any]]:
    if not SIZES_FILE.is_file():
        return {}
    rows = json.loads(SIZES_FILE.read_text(encoding="utf-8"))
    return {row.pop("fields"): row for row in rows.values()}


def find_experts(names: list[str], kind: str | None = None) -> list[ExpertInfo]:
    """The experts of these names, or of the whole catalogue.

    Args:
        names: As for `expert_info`; none means all names of the catalogue.
        kind: Only `embedding` or only `low_level` ones.

    Raises:
        UserError: Another kind.
        ConfigError: As for `expert_info`.
    """
    if kind not in (None, "embedding", "low_level"):
        raise UserError(f"--kind is `{kind}`; valid: embedding | low_level")
    infos = [expert_info(name) for name in names] if names else [_listed(name) for name in catalogue()]
    return [item for item in infos if kind is None or (item.network and item.network.kind == kind)]
