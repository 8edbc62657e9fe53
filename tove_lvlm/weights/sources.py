"""Where weights come from: one typed value for each frozen part, and the way from it to files.

    pretrained: OWNER/NAME         a hub id: from a mirror folder (TOVE_MIRROR), the hub's cache, or downloaded
                ./folder, /a/file  a file or folder, in the formats that the libraries publish
                package:NAME/FILE  a file that an installed Python package ships
                shipped:NAME       a folder of this package's own assets
                none               random weights

Nothing heavy is imported at the top: configurations are checked with this before torch is loaded.

See docs/design.md, "Saved towers".
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .. import storage
from ..config import ConfigError
from ..storage import MissingWeightsError, PartialWeightsError, WeightsError
from . import hub, packages

_SHIPPED = "shipped:"
WEIGHT_KEYS = ("pretrained", "revision", "file", "sha256", "license", "code_license")
"""Keys of a tower's YAML that say where weights come from; all others are architecture."""


class ChecksumError(WeightsError):
    """The weights are whole and are not those that were named."""


@dataclass(frozen=True, kw_only=True)
class WeightSource:
    """Where the weights of one frozen part come from, and on what terms."""

    pretrained: str | None
    """Hub id, folder, file, `package:NAME/FILE` or `shipped:NAME`; `none` for random weights."""
    revision: str | None = None
    """Branch, tag or commit on the hub. A mirror folder with another one is refused, unless a `sha256` is given."""
    file: str | None = None
    """Name of the weight file in the repository or folder, where it has no standard name or another one is wanted; or
    a pattern of standard names, such as `open_clip_*`, where several libraries' weights lie side by side."""
    sha256: str | None = None
    """Of the weight file (of all shards one after the other); another one is refused."""
    license: str | None = None
    """Licence of the weights."""
    code_license: str | None = None
    """Licence of the code that they belong to."""

    def __post_init__(self):
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ConfigError(f"`sha256` is `{self.sha256}`; expected 64 lower-case hexadecimal digits")
        if self.file is not None and (not self.file or self.file[0] == "/" or ".." in PurePosixPath(self.file).parts):
            raise ConfigError(f"`file` is `{self.file}`; expected a name inside the repository or folder")
        if storage.is_pattern(self.file) and not storage.standard_names(self.file):
            raise ConfigError(f"`file` is `{self.file}`; a pattern must fit one of {', '.join(storage.STANDARD_NAMES)}")


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


# ---- names ----


def resolve_source(source: str | os.PathLike[str], base: str | os.PathLike[str] | None = None) -> str:
    """Absolute path of a weight source; a hub id and `package:NAME/FILE` as they are.

    Args:
        source: What `pretrained` may be.
        base: Folder that a path starting with ./ or ../ is relative to; other paths are relative to the working
            directory.

    Raises:
        ConfigError: `package:` without NAME/FILE.
        MissingWeightsError: A path that does not exist and cannot be a hub id.
    """
    text = os.fspath(source)
    if text.startswith(packages.PREFIX):
        packages.parse(text)
        return text
    if text.startswith(_SHIPPED):
        path = storage.ASSETS / text.removeprefix(_SHIPPED)
        if not path.exists():
            shipped_names = sorted(
                f"{_SHIPPED}{path.relative_to(storage.ASSETS)}" for path in storage.ASSETS.glob("*/*")
            )
            shipped = ", ".join(shipped_names) or "nothing"
            raise MissingWeightsError(f"`{text}` is not shipped with this package; shipped: {shipped}")
        return str(path)
    path = Path(text).expanduser()
    if base is not None and text.startswith(("./", "../")):
        path = Path(base) / path
    if path.exists():
        return str(path.resolve())
    if isinstance(source, os.PathLike) or not is_hub_id(text):
        raise MissingWeightsError(f"`{text}` does not exist (looked at {path.absolute()})")
    return text


def is_hub_id(source: str) -> bool:
    """Whether a string can only be a name on the hub: it looks like one and nothing of that name is here."""
    looks_like_path = source.startswith((".", "/", "~")) or source.count("/") > 1 or source.endswith("/")
    is_file_name = Path(source).suffix in (".yaml", ".yml", ".json", *storage.WEIGHT_SUFFIXES)
    named = bool(source) and ":" not in source and not looks_like_path and not is_file_name
    return named and not Path(source).exists()


def portable(source: str | None) -> str | None:
    """A path inside the package's assets as `shipped:NAME`, which holds on any machine; any other source as it is."""
    if source is not None and Path(source).is_relative_to(storage.ASSETS):
        return f"{_SHIPPED}{Path(source).relative_to(storage.ASSETS)}"
    return source


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
        path = packages.locate(text) if text.startswith(packages.PREFIX) else Path(text)
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
