"""What a YAML names outside of itself: where weights come from, and the one way from a name to a path.

    pretrained: OWNER/NAME         a hub id: from a mirror folder (TOVE_MIRROR), the hub's cache, or downloaded
                ./folder, /a/file  a file or folder, in the formats that the libraries publish
                package:NAME/FILE  a file that an installed Python package ships
                shipped:NAME       a folder of this package's own assets
                none               random weights

See docs/design.md, "Saved towers".
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .. import storage
from ..errors import ConfigError
from ..registry import nearest
from ..storage import MissingWeightsError

SHIPPED = "shipped:"
WEIGHT_KEYS = ("pretrained", "revision", "file", "sha256", "license", "code_license")
"""Keys of a tower's YAML that say where weights come from; all others are architecture."""
PACKAGE = "package:"


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

    def __post_init__(self) -> None:
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ConfigError(f"`sha256` is `{self.sha256}`; expected 64 lower-case hexadecimal digits")
        if self.file is not None and (not self.file or self.file[0] == "/" or ".." in PurePosixPath(self.file).parts):
            raise ConfigError(f"`file` is `{self.file}`; expected a name inside the repository or folder")
        if storage.is_pattern(self.file) and not storage.standard_names(self.file):
            raise ConfigError(f"`file` is `{self.file}`; a pattern must fit one of {', '.join(storage.STANDARD_NAMES)}")


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
    if text.startswith(PACKAGE):
        parse_package(text)
        return text
    path = local_path(text, base)
    if path.exists():
        return str(path.resolve())
    if text.startswith(SHIPPED):
        names = sorted(f"{SHIPPED}{path.relative_to(storage.ASSETS)}" for path in storage.ASSETS.glob("*/*"))
        shipped = ", ".join(names) or "nothing"
        raise MissingWeightsError(f"`{text}` is not shipped with this package; shipped: {shipped}")
    if isinstance(source, os.PathLike) or not is_hub_id(text):
        raise MissingWeightsError(f"`{text}` does not exist (looked at {path.absolute()})")
    return text


def resolve_path(
    key: str, source: str | None, base: str | os.PathLike[str], kind: str, hub: bool = False
) -> str | None:
    """Absolute path of what a key names, checked; or the hub id as it is.

    Args:
        key: Dotted key for the message.
        source: `shipped:NAME`, a path, or a hub id where `hub` says so; None of None.
        base: As for `resolve_source`, the folder of the YAML.
        kind: `file`, `folder`, or `data`, which is either.
        hub: Whether `name/name` that is no path may be a hub id; a hub id's place may also be taken by a file.

    Raises:
        ConfigError: It does not exist or is of the other kind.
    """
    if source is None:
        return None
    try:
        path = local_path(source, base)
    except ConfigError as error:
        raise ConfigError(f"`{key}`: {error}") from error
    fits = {"folder": path.is_dir(), "file": path.is_file(), "data": path.exists()}
    if fits[kind] or (hub and path.is_file()):
        return str(path.resolve())
    if path.exists():
        raise ConfigError(f"`{key}`: `{source}` is not a {kind}")
    kind = "file" if kind == "data" else kind
    if hub and is_hub_id(source):
        return source
    hint = ""
    if path.parent.is_dir():
        hint = "; " + nearest(path.name, [entry.name for entry in path.parent.iterdir()][:200])
    raise ConfigError(f"`{key}`: {kind} `{source}` does not exist (looked at {path}){hint}")


def local_path(source: str, base: str | os.PathLike[str] | None = None) -> Path:
    """The path that a name stands for, whether or not anything is there.

    Args:
        source: `shipped:NAME` or a path.
        base: As for `resolve_source`.

    Raises:
        ConfigError: The system cannot follow it.
    """
    if source.startswith(SHIPPED):
        return storage.ASSETS / source.removeprefix(SHIPPED)
    if base is not None and source.startswith(("./", "../")):
        return Path(base) / source
    try:
        path = Path(source).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:  # a name too long for the file system, or the home of nobody
        raise ConfigError(f"`{source}` is no path that can be followed: {error}") from error
    return path


def is_hub_id(source: str) -> bool:
    """Whether a string can only be a name on the hub: it looks like one and nothing of that name is here."""
    looks_like_path = source.startswith((".", "/", "~")) or source.count("/") > 1 or source.endswith("/")
    is_file_name = Path(source).suffix in (".yaml", ".yml", ".json", *storage.WEIGHT_SUFFIXES)
    named = bool(source) and ":" not in source and not looks_like_path and not is_file_name
    return named and not Path(source).exists()


def portable(source: str | None) -> str | None:
    """A path inside the package's assets as `shipped:NAME`, which holds on any machine; any other source as it is."""
    if source is not None and Path(source).is_relative_to(storage.ASSETS):
        return f"{SHIPPED}{Path(source).relative_to(storage.ASSETS)}"
    return source


def parse_package(source: str) -> tuple[str, str]:
    """(NAME, FILE) of `package:NAME/FILE`.

    Raises:
        ConfigError: It is written otherwise.
    """
    name, _, file = source.removeprefix(PACKAGE).partition("/")
    if not name or not file or file.startswith("/") or ".." in PurePosixPath(file).parts:
        raise ConfigError(f"`{source}` is not of the form {PACKAGE}NAME/FILE, with FILE a path inside the package")
    return name, file
