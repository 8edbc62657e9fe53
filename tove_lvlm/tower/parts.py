"""A tower's frozen parts: where their weights come from.

No torch is imported.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import ConfigError
from ..config.sources import WeightSource
from ..storage import WeightsError, load_json
from ..weights.sources import from_record
from .from_yaml import read_tower_yaml

SOURCES_FILE = "sources.json"
"""Beside a saved tower's config.json: where its frozen parts came from."""
SOURCES_FORMAT = 1


def read_parts(path: str | Path, options: Sequence[str] = ()) -> dict[str, WeightSource]:
    """Where the weights of `clip` and of each expert that is not detached come from.

    Args:
        path: A tower's YAML, or the folder of a light tower, which refers to them.
        options: `a.b=c` strings put over the YAML.

    Raises:
        ConfigError: The YAML does not fit, or the folder refers to nothing.
    """
    if not Path(path).is_dir():
        return read_tower_yaml(path, options).parts
    if not is_light(path):
        raise ConfigError(f"folder `{path}` is no light tower, so there are no weights that it refers to")
    sources = read_sources(path)
    if options:
        raise ConfigError(f"options {list(options)} are for a tower's YAML; `{path}` is a saved tower")
    detached = load_json(Path(path) / "config.json").get("detached", [])
    experts = {name: entry for name, entry in sources["experts"].items() if name not in detached}
    return {part: from_record(entry) for part, entry in {"clip": sources["clip"], **experts}.items()}


def is_light(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a light tower."""
    return _content(folder).get("form") == "light"


def read_sources(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Where the frozen parts of a saved tower came from; empty when the folder does not say.

    Raises:
        WeightsError: SOURCES_FILE is not what this version writes.
    """
    content = _content(folder)
    return {key: content[key] for key in ("clip", "experts") if key in content}


def _content(folder: str | os.PathLike[str]) -> dict[str, Any]:
    file = Path(folder) / SOURCES_FILE
    if not file.is_file():
        return {}
    content = load_json(file)
    found = content.get("format", SOURCES_FORMAT)
    if found != SOURCES_FORMAT or isinstance(found, bool):
        raise WeightsError(
            f"{file}: `format` is {found!r}; this version reads {SOURCES_FORMAT}, so a newer one may have written it"
        )
    if content.get("form", "whole") not in ("whole", "light"):
        raise WeightsError(f"{file}: `form` is {content['form']!r}; expected whole or light")
    for key in ("clip", "experts"):
        if not isinstance(content.get(key, {}), dict):
            raise WeightsError(f"{file}: `{key}` is {type(content[key]).__name__}; expected an object")
    for name, entry in content.get("experts", {}).items():
        if not isinstance(entry, dict):
            raise WeightsError(f"{file}: `experts.{name}` is {type(entry).__name__}; expected an object")
    return content
