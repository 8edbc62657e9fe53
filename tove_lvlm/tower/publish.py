"""A tower on the hub: whole, with the code that loads it, its card, and nothing that names a place on this machine.

See docs/hosts.md, "Remote code".
"""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import storage
from ..weights.upload import upload, without_local_places
from .parts import SOURCES_FILE
from .remote_code import save_remote_code

if TYPE_CHECKING:
    from .modeling import ToVEVisionModel

_NAMING_PLACES = ("config.json", SOURCES_FILE)


def push_tower(tower: "ToVEVisionModel", repo: str, **options: Any) -> str:
    """Upload a tower.

    Args:
        tower: With its weights.
        repo: Hub id.
        **options: Of `weights.upload.upload`.

    Returns:
        Address of the commit.

    Raises:
        UserError: No network, or no right to write there.
    """
    with tempfile.TemporaryDirectory() as folder:
        return upload(stage_tower(tower, Path(folder) / "tower"), repo, **{"message": "Upload tower", **options})


def stage_tower(tower: "ToVEVisionModel", folder: str | os.PathLike[str]) -> Path:
    """Write what is uploaded; returns the folder.

    Args:
        tower: With its weights.
        folder: New.
    """
    path = save_remote_code(tower, folder)
    for name in _NAMING_PLACES:
        storage.save_json(path / name, without_local_places(storage.load_json(path / name)))
    return path
