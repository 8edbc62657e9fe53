"""What the YAMLs of several recipes name alike, checked before torch is imported.

See docs/design.md, "Configuration".
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from ..config import ConfigError
from ..data.errors import DataError
from ..data.tables import tables_in
from ..registry import nearest, require
from ..train.stage import Resolve


def vision_tower(source: str, resolve: Resolve) -> str:
    """What `model.vision_tower` says: `tove`, `clip`, or the absolute path of a folder with a tower.

    Args:
        source: As it was written.
        resolve: See `train.stage.Stage.resolve_paths`.

    Raises:
        ConfigError: It is none of these, or the folder has no config.json.
    """
    if source in ("tove", "clip"):
        return source
    if not source.startswith(("shipped:", ".", "/", "~")) and "/" not in source and not Path(source).exists():
        hint = nearest(source, ["tove", "clip"])
        raise ConfigError(f"`model.vision_tower` is `{source}`; expected `tove`, `clip` or a folder; {hint}")
    folder = resolve("model.vision_tower", source, "folder")
    if not (Path(folder) / "config.json").is_file():
        raise ConfigError(f"`model.vision_tower`: folder `{source}` has no config.json")
    return folder


_MOST_FILES = 1_000_000


def _most_names(name: str) -> int:
    """How many names braces may stand for: the product of all of their choices, without making one."""
    number = 1
    for first, last in re.findall(r"\{(-?\d+)\.\.(-?\d+)", name):
        number *= abs(int(last[:30]) - int(first[:30])) + 1
    return number * math.prod(part.count(",") + 1 for part in re.findall(r"\{([^{}]*)\}", name))


def data_files(key: str, names: Sequence[str], resolve: Resolve) -> list[str]:
    """Absolute paths of data files.

    Args:
        key: Dotted key of the list, for messages.
        names: As they were written; `{00000..00331}` stands for that many names, as in a shell and in webdataset, and a
            folder of tables for these.
        resolve: See `train.stage.Stage.resolve_paths`.

    Raises:
        ConfigError: One does not exist, is a folder without tables, or braces stand for more than a million.
        ImportError: Braces without the package that knows them; names the extra.
    """
    paths: list[str] = []
    for index, name in enumerate(names):
        if (number := _most_names(name)) > _MOST_FILES:
            raise ConfigError(
                f"`{key}[{index}]`: `{name}` stands for {number:,} files; at most {_MOST_FILES:,} are read"
            )
        expand = require("braceexpand", "train").braceexpand if "{" in name else lambda one: [one]
        for name_of_one in expand(name):
            path = resolve(f"{key}[{index}]", name_of_one, "data")
            try:
                paths += map(str, tables_in(Path(path))) if Path(path).is_dir() else [path]
            except DataError as error:
                raise ConfigError(f"`{key}[{index}]`: {error}") from error
    return paths
