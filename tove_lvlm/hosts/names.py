"""How a host's config names our tower: `tove:PATH`, or plain `tove` with PATH in the environment.

One string is all that survives a host's own config saving and loading, so PATH travels inside it.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from .. import storage
from ..config import UserError
from ..config.sources import resolve_source

if TYPE_CHECKING:
    from ..tower.configuration import ToVEVisionConfig

NAME = "tove"
TOWER_VARIABLE = "TOVE_TOWER"
_PREFIX = f"{NAME}:"


def is_tove(name: object) -> TypeGuard[str]:
    """Whether a host's vision tower name is ours."""
    return isinstance(name, str) and (name == NAME or name.startswith(_PREFIX))


def tower_path(name: str, key: str, *folders: str | os.PathLike[str]) -> Path:
    """Absolute path of the tower that a name stands for.

    Args:
        name: `tove` or `tove:PATH`; PATH is a tower's YAML, the folder of a saved tower, or `shipped:NAME`.
        key: The host's key that held the name, for the message.
        *folders: Where a relative PATH is looked for before the working directory, such as the checkpoint's folder.

    Raises:
        UserError: No PATH, nothing is there, or the folder is not a saved tower.
    """
    source = os.environ.get(TOWER_VARIABLE, "") if name == NAME else name.removeprefix(_PREFIX)
    if not source:
        raise UserError(
            f"`{key}: {name}` does not say which tower: write `{key}: tove:PATH` with a tower's YAML or the folder of "
            f"a saved tower, or set the environment variable {TOWER_VARIABLE} to it"
        )
    beside = [Path(folder) / source for folder in folders if not Path(source).is_absolute()]
    try:
        path = Path(resolve_source(next((str(candidate) for candidate in beside if candidate.exists()), source)))
    except storage.MissingWeightsError as error:
        raise UserError(f"`{key}: {name}`: {error}") from error
    if path.is_dir():
        _check_folder(path, f"`{key}: {name}`")
    elif not path.is_file():
        raise UserError(
            f"`{key}: {name}`: there is no file or folder `{source}` (looked at {path.absolute()}); give a tower's "
            "YAML or a saved tower's folder"
        )
    return path


def read_tower_config(path: Path) -> "ToVEVisionConfig":
    """The architecture of a tower's YAML or saved folder; no weight is read.

    Raises:
        UserError: The file does not fit.
    """
    from ..tower.build import tower_config_from_yaml
    from ..tower.configuration import ToVEVisionConfig

    return ToVEVisionConfig.from_pretrained(path) if path.is_dir() else tower_config_from_yaml(path)


def _check_folder(path: Path, where: str) -> None:
    file = path / "config.json"
    if not file.is_file():
        raise UserError(f"{where}: folder `{path}` has no config.json, so it is not a saved tower")
    model_type = storage.load_json(file).get("model_type")
    if model_type != "tove_vision":
        raise UserError(
            f"{where}: {file} says `model_type: {model_type}`, expected `tove_vision`: this is not a saved tower "
            "(one is written by `tower.save_pretrained(folder)`)"
        )
