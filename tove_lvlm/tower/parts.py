"""A tower's frozen parts: where their weights come from.

No torch is imported.
"""

from collections.abc import Sequence
from pathlib import Path

from ..config import ConfigError
from ..config.sources import WeightSource
from ..storage import load_json
from ..weights.sources import from_record
from .from_yaml import read_tower_yaml

SOURCES_FILE = "sources.json"
"""Beside a saved tower's config.json: where its frozen parts came from."""


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
    file = Path(path) / SOURCES_FILE
    sources = load_json(file) if file.is_file() else {}
    if sources.get("form") != "light":
        raise ConfigError(f"folder `{path}` is no light tower, so there are no weights that it refers to")
    if options:
        raise ConfigError(f"options {list(options)} are for a tower's YAML; `{path}` is a saved tower")
    detached = load_json(Path(path) / "config.json").get("detached", [])
    experts = {name: entry for name, entry in sources["experts"].items() if name not in detached}
    return {part: from_record(entry) for part, entry in {"clip": sources["clip"], **experts}.items()}
