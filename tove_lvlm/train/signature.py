"""Signatures of training checkpoints: DeepSpeed unpickles its own files, and unpickling runs code.

What a training writes is signed with a key that only its user has, and what is not is not resumed from without
`train.trust_checkpoint`. The key is made on first use: `checkpoint.key` in TOVE_STATE_DIR, else in
$XDG_STATE_HOME/tove_lvlm, else in ~/.local/state/tove_lvlm. Machines that resume each other's runs share that folder.

Our choice; see SECURITY.md.
"""

import contextlib
import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..storage import clear_leftovers, sync_to_disk, temporary_folder

logger = logging.getLogger(__name__)

STATE_DIR = "TOVE_STATE_DIR"
SIGNATURE = "signature"
_NAME = "checkpoint.key"


def key_file() -> Path:
    """Where the key is, or will be."""
    if folder := os.environ.get(STATE_DIR):
        return Path(folder).expanduser() / _NAME
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "tove_lvlm" / _NAME


def sign(manifest: Mapping[str, Any]) -> str | None:
    """HMAC-SHA256 of a manifest, as hex; None, with a warning, where no key can be kept."""
    try:
        clear_leftovers(key_file().parent)
        key = _read(key_file()) or _make(key_file())
    except (OSError, RuntimeError, UserError) as error:  # RuntimeError: Path.home of a user without one
        logger.warning(
            "checkpoints are not signed, and resuming needs train.trust_checkpoint=true: %s cannot be written (%s); "
            "name another folder in %s",
            _NAME,
            error,
            STATE_DIR,
        )
        return None
    return _digest(key, manifest)


def is_ours(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest was signed with this user's key."""
    try:
        key = _read(key_file())
    except (OSError, RuntimeError):
        return False
    given = manifest.get(SIGNATURE)
    if key is None or not isinstance(given, str):
        return False
    return hmac.compare_digest(_digest(key, manifest).encode(), given.encode(errors="replace"))


def _digest(key: bytes, manifest: Mapping[str, Any]) -> str:
    content = json.dumps({k: v for k, v in manifest.items() if k != SIGNATURE}, sort_keys=True)
    return hmac.new(key, content.encode(), hashlib.sha256).hexdigest()


def _read(path: Path) -> bytes | None:
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OSError(f"{path} holds no key; remove it, and a new one is made") from error
    return key or None


def _make(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with temporary_folder(path) as folder:
        temporary = folder / path.name
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as stream:
            stream.write(secrets.token_hex(32) + "\n")
        sync_to_disk(temporary)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # of two runs that start together, the first one's key is the key
    return _read(path) or b""
