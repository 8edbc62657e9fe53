"""The mirror folder, TOVE_MIRROR: what `tove fetch` brought from the hub, DIR/OWNER/NAME/."""

import os
from pathlib import Path

from ..errors import UserError

MIRROR_VARIABLE = "TOVE_MIRROR"


def in_mirror(repo: str) -> Path | None:
    """The folder of a hub's repository in the mirror; None without a mirror, or where it has no such folder.

    Args:
        repo: Hub id.

    Raises:
        UserError: TOVE_MIRROR is no folder.
    """
    named = os.environ.get(MIRROR_VARIABLE)
    if not named:
        return None
    if not Path(named).is_dir():
        raise UserError(f"{MIRROR_VARIABLE}={named}: there is no such folder; `tove fetch YAML --to DIR` makes one")
    folder = Path(named).resolve() / repo
    return folder if folder.is_dir() else None


def located(source: str | Path | None) -> str | Path | None:
    """What transformers is to read: a hub id's folder in the mirror, where it has one; else the source itself.

    Args:
        source: Folder, hub id, or None.
    """
    if not isinstance(source, str) or Path(source).exists():
        return source
    return in_mirror(source) or source
