"""A tower's frozen parts: where their weights come from, and what of them is on this machine. Our choice.

No torch is imported.
"""

from collections.abc import Sequence
from pathlib import Path

from ..config import ConfigError
from ..storage import load_json
from ..weights.sources import WeightSource, WeightStatus, from_record, status
from .configuration_yaml import read_tower_yaml

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
    known = load_json(file) if file.is_file() else {}
    if known.get("form") != "light":
        raise ConfigError(f"folder `{path}` is no light tower, so there are no weights that it refers to")
    if options:
        raise ConfigError(f"options {list(options)} are for a tower's YAML; `{path}` is a saved tower")
    detached = load_json(Path(path) / "config.json").get("detached", [])
    experts = {name: entry for name, entry in known["experts"].items() if name not in detached}
    return {part: from_record(entry) for part, entry in {"clip": known["clip"], **experts}.items()}


def statuses(path: str | Path, options: Sequence[str] = (), checksum: bool = True) -> dict[str, WeightStatus]:
    """What of a tower's weights is on this machine, by part.

    Args:
        path: As for `read_parts`.
        options: As for `read_parts`.
        checksum: Whether files are compared with the `sha256` that is known, for which all bytes are read.

    Raises:
        UserError: As for `read_parts`, or the mirror holds another revision.
    """
    return {part: status(source, checksum) for part, source in read_parts(path, options).items()}
