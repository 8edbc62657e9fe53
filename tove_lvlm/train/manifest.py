"""`complete.json` of a training checkpoint: what its files are, and whether they are as they were written.

See docs/design.md, "Training".
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..storage import fingerprint, sync_to_disk
from .guards import TrainingStopped
from .signature import SIGNATURE, sign

FORMAT = 1
MANIFEST = "complete.json"
TRAINABLE = "trainable.safetensors"
IDENTITY = "identity.json"


class CheckpointError(TrainingStopped):
    """A checkpoint could not be written or read."""


def rank_file(rank: int) -> str:
    """Name of the file with one rank's random states and running sums."""
    return f"rank_{rank}.pt"


def write_manifest(folder: Path, files: Sequence[Path], step: int) -> None:
    """List a checkpoint's files, sign the list and flush it to the disk.

    Args:
        folder: Of the checkpoint; IDENTITY is in it.
        files: All that is in it.
        step: The run's.
    """
    names = [str(path.relative_to(folder)) for path in files]
    manifest = {
        "format": FORMAT,
        "step": step,
        "identity": json.loads((folder / IDENTITY).read_text(encoding="utf-8")),
        "files": {name: path.stat().st_size for name, path in zip(names, files, strict=True)},
        "sha256": dict(zip(names, _checksums(files), strict=True)),
    }
    manifest[SIGNATURE] = sign(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    sync_to_disk(folder / MANIFEST)


def read_meta(folder: str | Path) -> dict[str, Any]:
    """The manifest: format, step, identity of the run that wrote it, size and SHA-256 of every file, signature.

    Raises:
        CheckpointError: It is not there, or not what `save` writes.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        files, hashes = manifest["files"], manifest.get("sha256", {})
        well_formed = (
            isinstance(manifest["identity"], dict)
            and isinstance(files, dict)
            and {TRAINABLE, "scheduler.pt", rank_file(0)} <= files.keys()
            and hashes.keys() <= files.keys()
        )
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{MANIFEST} cannot be read: {type(error).__name__}") from error
    if not well_formed:
        raise CheckpointError(f"{MANIFEST} does not list what a checkpoint has")
    return manifest


def damage(folder: Path, checksums: bool = False) -> str | None:
    """What is wrong with a checkpoint; None when it is whole.

    Args:
        folder: `checkpoint-N`.
        checksums: Read every file and compare; otherwise sizes are compared.
    """
    try:
        manifest = read_meta(folder)
    except CheckpointError as error:
        return str(error)
    sizes = manifest["files"]
    present = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    if odd := sorted(present ^ sizes.keys()):
        return f"{odd[0]} {'is not listed in ' + MANIFEST if odd[0] in present else 'is missing'}"
    for name, size in sizes.items():
        if (folder / name).stat().st_size != size:
            return f"{name} has {(folder / name).stat().st_size} bytes, was written with {size}"
    hashes = manifest.get("sha256", {}) if checksums else {}  # checkpoints of before there were checksums have none
    try:
        found = _checksums([folder / name for name in hashes])
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    wrong = [name for name, checksum in zip(hashes, found, strict=True) if checksum != hashes[name]]
    return f"{wrong[0]} has another checksum than it was written with" if wrong else None


def _checksums(files: Sequence[Path]) -> list[str]:
    """SHA-256 of each; read in several threads, as gigabytes take seconds."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(pool.map(fingerprint, files))
