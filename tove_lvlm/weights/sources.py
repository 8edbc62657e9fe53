"""From where weights come from (config/sources.py) to files on this machine.

Nothing heavy is imported at the top: configurations are checked with this before torch is loaded.

See docs/design.md, "Saved towers".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .. import storage
from ..config import ConfigError
from ..config.sources import PACKAGE, WEIGHT_KEYS, WeightSource, is_hub_id, portable, resolve_source
from ..storage import MissingWeightsError, PartialWeightsError, WeightsError
from . import hub, packages


class ChecksumError(WeightsError):
    """The weights are whole and are not those that were named."""


@dataclass(frozen=True, kw_only=True)
class WeightStatus:
    """What of a part's weights is on this machine."""

    state: str
    """`present`, `partial`, `missing`, `wrong checksum`; `random` where no weights are asked for, `none needed` where
    there is nothing to load."""
    place: str | None = None
    """File or folder that holds them."""
    bytes: int = 0
    """Size of what is there of the weights."""
    format: str | None = None
    """Ending of the weight files: `safetensors`, `bin`, `pth`, ..."""
    problem: str | None = None
    """What is wrong, for people."""


# ---- files ----


def fetch(source: WeightSource, weights: bool = True) -> Path:
    """File or folder here that holds the weights; a hub id is downloaded where that is needed and allowed.

    Args:
        source: With a `pretrained` that is not none.
        weights: Whether the weights are wanted; False gives the folder with the files that say how the network is
            built, and downloads no others.

    Raises:
        MissingWeightsError: They are not here and not to be had.
        ConfigError: `file` does not go with `pretrained`.
        UserError: The mirror holds another revision.
    """
    return _locate(source, hub.fetch, weights)


def locate(source: WeightSource) -> Path:
    """As `fetch`, and nothing is downloaded.

    Raises:
        MissingWeightsError: They are not here.
    """
    return _locate(source, hub.local, True)


def _locate(source: WeightSource, from_hub, weights: bool) -> Path:
    if source.pretrained is None:
        raise ConfigError("`pretrained` is none: there are no weights to look for")
    text = resolve_source(source.pretrained)
    if is_hub_id(text):
        path = from_hub(text, source.revision, source.file, weights, compared=source.sha256 is not None)
    else:
        path = packages.locate(text) if text.startswith(PACKAGE) else Path(text)
        if source.file is not None and path.is_file():
            raise ConfigError(f"`file: {source.file}`: `pretrained` is the file `{source.pretrained}` already")
    if not weights:
        return path.parent if path.is_file() else path
    return path if path.is_file() else storage.named_file(path, source.file)


def verify(source: WeightSource, path: Path) -> str:
    """Fingerprint of weights, after comparing it with what the source says, or else the mirror that they lie in.

    Args:
        source: Its `sha256` may be left out.
        path: What `fetch` gave.

    Raises:
        ChecksumError: Another fingerprint; names both.
        MissingWeightsError: There are no weights.
    """
    actual, expected = storage.fingerprint(path), _expected_sha256(source, path)
    if expected not in (None, actual):
        raise ChecksumError(f"weights `{path}` have the sha256 {actual}, expected {expected}")
    return actual


def _expected_sha256(source: WeightSource, path: Path) -> str | None:
    files = storage.weight_files(path)
    if source.sha256 is not None or len(files) != 1:
        return source.sha256
    return hub.recorded_sha256(files[0])


def status(source: WeightSource, checksum: bool = True) -> WeightStatus:
    """What of the weights is on this machine; nothing is downloaded or loaded.

    Args:
        source: One part's.
        checksum: Whether a `sha256` that is known (given, or recorded by the mirror) is compared, for which all bytes
            are read.

    Raises:
        UserError: The source itself does not fit, or the mirror holds another revision.
    """
    if source.pretrained is None:
        return WeightStatus(state="random")
    try:
        path = locate(source)
        files = storage.weight_files(path)
    except PartialWeightsError as error:
        return WeightStatus(state="partial", problem=str(error))
    except MissingWeightsError as error:
        return WeightStatus(state="missing", problem=str(error))
    fields: dict[str, Any] = {
        "place": str(path),
        "bytes": sum(file.stat().st_size for file in files),
        "format": files[0].suffix.removeprefix("."),
    }
    try:
        for file in files:
            storage.check_whole(file)
    except WeightsError as error:
        return WeightStatus(state="partial", problem=str(error), **fields)
    try:
        if checksum and _expected_sha256(source, path) is not None:
            verify(source, path)
    except ChecksumError as error:
        return WeightStatus(state="wrong checksum", problem=str(error), **fields)
    return WeightStatus(state="present", **fields)


# ---- record ----


def recorded(source: WeightSource, sha256: str | None = None, path: Path | None = None) -> dict[str, str | None]:
    """How a saved tower remembers where a part came from.

    Args:
        source: As it was read.
        sha256: Fingerprint of the weights; None when they have not been looked at.
        path: Where they were read; of a hub's branch the commit is recorded.
    """
    revision, file = source.revision, source.file
    if source.pretrained is not None and path is not None and is_hub_id(source.pretrained):
        folder = path.parents[len(PurePosixPath(file).parts) - 1] if file else path
        revision = hub.commit_of(folder) or revision
    if storage.is_pattern(file) and path is not None:
        file = path.name
    return {
        "source": portable(source.pretrained),
        "revision": revision,
        "file": file,
        "sha256": sha256,
        "license": source.license,
        "code_license": source.code_license,
    }


def from_record(entry: Mapping[str, Any], elsewhere: str | None = None) -> WeightSource:
    """The source of an entry that `recorded` made.

    Args:
        entry: Keys that it lacks count as none.
        elsewhere: Where the weights are on this machine, in place of what the entry says.
    """
    keys = {key: entry.get(key) for key in WEIGHT_KEYS if key != "pretrained"}
    if elsewhere is not None and Path(elsewhere).is_file():
        keys["file"] = None
    return WeightSource(pretrained=elsewhere or entry.get("source"), **keys)
