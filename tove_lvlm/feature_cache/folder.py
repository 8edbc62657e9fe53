"""The cache's folder: whose it is, how large it may become, and what stops adding to it.

    DIR/expert_cache.json     says that the folder is one, and of which format
    DIR/PART/part.json        what the features of this part are of (see `identity`)
    DIR/PART/ID.data, .index  shards

See docs/design.md, "Expert cache".
"""

import contextlib
import logging
import os
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..storage import clear_leftovers, load_json, save_json, told_disk_errors

logger = logging.getLogger(__name__)

MARKER, PART_FILE = "expert_cache.json", "part.json"
FORMAT = 1
GB = 10**9
_WRITERS = 16
"""The folder's size is looked up again after this part of what was free then: as many processes may add at once."""


class CacheFolder:
    """See the module's docstring.

    Args:
        folder: Made when it is missing, if `make`.
        size_gb: Bytes on disk, in units of 10^9, beyond which nothing is added; none for no limit. Each rank may pass
            it by a batch.
        make: Make it a cache when it is none yet.

    Raises:
        UserError: There is no cache, the folder holds something else, or cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], size_gb: float | None = None, *, make: bool = True):
        self.path = Path(folder)
        self.limit = None if size_gb is None else int(size_gb * GB)
        self._unseen = 0  # bytes that may still be added before the folder's size is looked up
        self.stopped: str | None = None
        """Why nothing is added any more."""
        if not (self.path / MARKER).is_file():
            self._become_one(make)
        if make:
            clear_leftovers(self.path)
        content = load_json(self.path / MARKER)
        if content.get("format") != FORMAT:
            raise UserError(
                f"expert cache `{self.path}` is of format {content.get('format')!r}; this version reads {FORMAT}: name "
                "another folder"
            )

    def _become_one(self, make: bool) -> None:
        path = self.path
        if path.exists() and not path.is_dir():
            raise UserError(f"expert cache `{path}` is a file; name a folder")
        if not make:
            raise UserError(
                f"`{path}` holds no expert cache ({MARKER}); `tove cache build` or a training run makes one"
            )
        with told_disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            if any(not entry.name.startswith(".") and entry.name != MARKER for entry in path.iterdir()):
                raise UserError(f"expert cache `{path}` holds other files and no {MARKER}; name a folder of its own")
            save_json(path / MARKER, {"format": FORMAT})

    def parts(self) -> list[Path]:
        """Folders of the parts, in order."""
        return sorted(file.parent for file in self.path.glob(f"*/{PART_FILE}"))

    def part(self, key_hex: str, description: dict[str, Any]) -> Path:
        """The folder of a part, made when it is missing and can be made; what killed processes left in it goes.

        Args:
            key_hex: Of the part.
            description: For part.json.
        """
        folder = self.path / key_hex[:16]
        if not (folder / PART_FILE).is_file():
            try:
                folder.mkdir(exist_ok=True)
                save_json(folder / PART_FILE, description | {"key": key_hex})
            except (OSError, UserError) as error:
                self.stop(str(error))
        clear_leftovers(folder)
        return folder

    def num_bytes(self) -> int:
        """Size of all files that are there."""
        total = 0
        for folder in [entry.path for entry in os.scandir(self.path) if entry.is_dir(follow_symlinks=False)]:
            with contextlib.suppress(FileNotFoundError):  # a temporary one of another process
                for file in os.scandir(folder):
                    with contextlib.suppress(FileNotFoundError):
                        total += file.stat(follow_symlinks=False).st_size
        return total

    def takes(self, num_bytes: int) -> bool:
        """Whether so much may be added now.

        Args:
            num_bytes: Of a batch's records.
        """
        if self.stopped is None and self.limit is not None:
            self._unseen -= num_bytes
            if self._unseen < 0:
                free = self.limit - self.num_bytes() - num_bytes
                self._unseen = free // _WRITERS
                if free < 0:
                    self.stop(f"its limit of {self.limit / GB:g} GB is reached (train.expert_cache_size_gb)")
        return self.stopped is None

    def stop(self, reason: str) -> None:
        """Add nothing more from this process, and say so once.

        Args:
            reason: For the log.
        """
        if self.stopped is None:
            self.stopped = reason
            logger.warning("expert cache %s: nothing is added any more: %s", self.path, " ".join(reason.split()))
