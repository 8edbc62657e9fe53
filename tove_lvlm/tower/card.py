"""The README.md of a saved tower, a model card: its parts, where they came from, what their licences allow.

It is made from what lies in the folder (config.json, sources.json), and only takes the place of a card that was made
here: a README without the mark is its user's and stays.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .. import storage
from ..config.sources import is_hub_id
from ..experts import describe
from ..experts.libraries import code_license
from ..licenses import NO, UNKNOWN, YES, commercial_use, license_of, terms_of
from .configuration import ToVEVisionConfig

CARD_FILE = "README.md"
MARK = "<!-- Written by tove_lvlm each time the tower is saved. Remove this line to keep a text of your own. -->"
_SENTENCES = {
    YES: "The licences stated for code and weights of every part allow commercial use.",
    NO: "Commercial use is FORBIDDEN by the licence of",
    UNKNOWN: "Whether commercial use is allowed is UNKNOWN, because of the licence of",
}
_REMOTE = """

Where `tove_lvlm` is not installed, by the code that lies beside it:

    from transformers import AutoModel
    tower = AutoModel.from_pretrained(folder, trust_remote_code=True)"""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A line of the card: CLIP or an expert."""

    name: str
    network: str
    """Library and architecture."""
    gives: str
    source: Mapping[str, Any]
    """As in sources.json."""
    code_license: str | None
    detached: bool = False
    mean_term: bool = False
    """Whether the mean of what it added stands in its place."""

    @property
    def commercial(self) -> str:
        """`yes`, `no` or `unknown`, of code and weights."""
        return commercial_use([self.code_license, *self.weights_license])

    @property
    def weights_license(self) -> list[str | None]:
        """Of weights that are read; none for an expert without, or with random ones."""
        return [self.source.get("license")] if self.source.get("source") else []

    def reasons(self, answer: str) -> list[str]:
        """What of this part makes the answer what it is."""
        named = {"code": [self.code_license], "weights": self.weights_license}
        return [
            f"`{self.name}` ({what}: {license_of(license).id})"
            for what, licenses in named.items()
            for license in licenses
            if license_of(license).commercial == answer
        ]


def write_card(folder: str | os.PathLike[str], sources_file: str) -> None:
    """Write the card of a saved tower, unless a README of somebody's own is there.

    Args:
        folder: With config.json.
        sources_file: Name of the file that says where the frozen parts came from.
    """
    path = Path(folder) / CARD_FILE
    if path.is_file() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return
    path_of_sources = Path(folder) / sources_file
    sources = storage.load_json(path_of_sources) if path_of_sources.is_file() else {}
    config = storage.load_json(Path(folder) / "config.json")
    text = card(ToVEVisionConfig(**config), sources, remote_code="auto_map" in config)
    with storage.atomic_file(path) as writing:
        writing.write_text(text, encoding="utf-8")


def card(config: ToVEVisionConfig, sources: Mapping[str, Any], remote_code: bool = False) -> str:
    """The text.

    Args:
        config: Of the tower.
        sources: Content of sources.json; empty where nothing is known.
        remote_code: Whether the code that loads it lies beside it.
    """
    parts = parts_of(config, sources)
    attached = [part for part in parts if not part.detached]
    light = " Only the fusion is in this folder; the frozen parts are read from where the table says."
    fused = "concatenated to" if config.fusion_settings.kind == "concat" else "fused into"
    names = ", ".join(config.attached_names) or "none"
    front = {"library_name": "tove_lvlm", "pipeline_tag": "image-feature-extraction"} | front_of(attached)
    return f"""{front_matter(front)}
{MARK}

# A ToVE vision tower

CLIP with the features of {len(config.attached_names)} frozen vision experts ({names}) {fused} its tokens.
An image of {config.image_size} x {config.image_size} pixels gives {config.num_tokens} tokens of width \
{config.hidden_size}.{light if sources.get("form") == "light" else ""}

    from tove_lvlm import ToVEVisionModel
    tower = ToVEVisionModel.from_pretrained(folder){_REMOTE if remote_code else ""}

{table(parts)}"""


def table(parts: list[Part]) -> str:
    """What the licences allow, and a line for each part."""
    rows = "\n".join(_row(part) for part in parts)
    return f"""**{_verdict([part for part in parts if not part.detached])}**

| part | network | gives | weights | sha256 | licence of weights | licence of code | commercial use |
|---|---|---|---|---|---|---|---|
{rows}

Licences are as the tower's YAML or the catalogue states them; this is no legal advice.
"""


def front_matter(front: Mapping[str, Any]) -> str:
    """The YAML block that the hub reads."""
    return f"---\n{yaml.safe_dump(dict(front), sort_keys=False).strip()}\n---"


def front_of(parts: list[Part]) -> dict[str, Any]:
    """What its parts say in that block: tags, licence, and the models that it is made of."""
    licenses = {license_of(name).id for part in parts for name in part.weights_license}
    origins = [str(part.source.get("source")) for part in parts if part.source.get("source")]
    bases = list(dict.fromkeys(origin for origin in origins if is_hub_id(origin)))
    front: dict[str, Any] = {"tags": ["tove", "vision-tower", "mixture-of-experts", "llava"]}
    front["license"] = licenses.pop() if len(licenses) == 1 and licenses != {"unknown"} else "other"
    return front | ({"base_model": bases} if bases else {})


def parts_of(config: ToVEVisionConfig, sources: Mapping[str, Any]) -> list[Part]:
    """CLIP, or the base in its place, and the experts.

    Args:
        config: Of the tower.
        sources: As for `card`.
    """
    expert_sources = sources.get("experts", {})
    base = _base(config, sources.get("clip") or {})
    return [base, *(_expert(entry, config, expert_sources.get(entry["name"]) or {}) for entry in config.experts)]


def _base(config: ToVEVisionConfig, origin: Mapping[str, Any]) -> Part:
    library, network = "transformers", f"CLIP, {(config.clip_config or {}).get('num_hidden_layers')} layers"
    if config.base is not None:
        spec = describe(config.base)
        library, network = spec.library, spec.architecture
    return Part(
        name="clip" if config.base is None else "base",
        network=f"{library}: {network}, patch {config.patch_size}",
        gives=f"{config.base_width} x {config.side}x{config.side}",
        source=origin,
        code_license=origin.get("code_license") or code_license(library),
    )


def _expert(entry: Mapping[str, Any], config: ToVEVisionConfig, origin: Mapping[str, Any]) -> Part:
    spec = describe(entry)
    return Part(
        name=spec.name,
        network=f"{spec.library}: {spec.architecture}",
        gives=f"{spec.channels} x {spec.grid[0]}x{spec.grid[1]} ({spec.output})",
        source=origin,
        code_license=origin.get("code_license") or code_license(spec.library),
        detached=spec.name in config.detached,
        mean_term=spec.name in config.mean_terms,
    )


def _row(part: Part) -> str:
    origin = part.source
    state = " (detached, its mean term stays)" if part.mean_term else " (detached)" if part.detached else ""
    name = f"{part.name}{state}"
    sha256 = f"`{origin['sha256'][:16]}...`" if origin.get("sha256") else "-"
    weights_license = (origin.get("license") or "not stated") if origin.get("source") else "-"
    cells = [name, part.network, part.gives, _place(origin), sha256, weights_license]
    cells += [part.code_license or "not known", part.commercial]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _place(origin: Mapping[str, Any]) -> str:
    """Where the weights came from; of a path on the machine that wrote it only the last name."""
    source = origin.get("source")
    if not source:
        return "none"
    if os.path.isabs(source):
        return f"a local copy (`{Path(source).name}`)"
    file = f"/{origin['file']}" if origin.get("file") else ""
    revision = f" at `{origin['revision']}`" if origin.get("revision") else ""
    return f"`{source}{file}`{revision}"


def _verdict(parts: list[Part]) -> str:
    answers = {part.commercial for part in parts}
    answer = next((answer for answer in (NO, UNKNOWN) if answer in answers), YES)
    reasons = [reason for part in parts for reason in part.reasons(answer)]
    if answer != YES:
        return f"{_SENTENCES[answer]} {', '.join(reasons)}."
    terms = terms_of(name for part in parts for name in [part.code_license, *part.weights_license])
    return " ".join([_SENTENCES[YES], *(f"With terms: {note}." for note in terms)])
