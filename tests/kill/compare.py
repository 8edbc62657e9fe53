"""What a command left, against what an undisturbed run left."""

import fnmatch
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from kill.moments import is_unfinished
from tove_lvlm.feature_cache import CacheFolder
from tove_lvlm.feature_cache.folder import MARKER, PART_FILE
from tove_lvlm.feature_cache.shard import DATA, INDEX
from tove_lvlm.feature_cache.survey import survey
from tove_lvlm.train.checkpoint import damage

_CHECKPOINT = re.compile(r"checkpoint-\d+")
TIMED = frozenset(
    "images_per_s tokens_per_s peak_memory_gb seconds peak_gpu_bytes train_runtime train_samples_per_second "
    "train_steps_per_second train_loss total_flos".split()
)
"""Keys of figures that depend on the clock, or on how a run was cut into parts."""


def differences(place: Path, reference: Path, volatile: Collection[str] = ()) -> list[str]:
    """What is not as in an undisturbed run; nothing may be left over.

    Args:
        place: Folder of all that the command wrote.
        reference: The same of an undisturbed run.
        volatile: JSON keys that are not compared, besides TIMED.
    """
    names, expected = _names(place), _names(reference)
    found = [f"{name} is missing" for name in sorted(expected - names)]
    found += [f"{name} is left over" for name in sorted(names - expected)]
    keys = TIMED | set(volatile)
    for name in sorted(names & expected):
        if _in_checkpoint(name):
            same = not name.endswith("trainable.safetensors") or _bytes(place / name) == _bytes(reference / name)
        else:
            same = (place / name).is_dir() or _content(place / name, keys) == _content(reference / name, keys)
        found += [] if same else [f"{name} differs"]
    if (now := _cached(place)) != (then := _cached(reference)):
        found.append(f"the expert cache has {now}, of an undisturbed run {then}")
    return found + _damaged(place)


def halves(place: Path, reference: Path, volatile: Collection[str] = (), growing: Collection[str] = ()) -> list[str]:
    """What of a killed run's output is neither whole nor absent; what is marked as unfinished is passed over.

    Args:
        place, reference, volatile: As for `differences`.
        growing: Patterns of files that may hold the first lines only, the last of them cut short.
    """
    found, keys = [], TIMED | set(volatile)
    for name in sorted(_names(place)):
        path = place / name
        if path.is_dir() or _in_checkpoint(name) or any(is_unfinished(place / part) for part in _upwards(name)):
            continue
        if path.name.endswith(".tove-lock"):
            continue
        if any(fnmatch.fnmatch(name, pattern) for pattern in growing):
            lines, wanted = _lines(path, keys), _lines(reference / name, keys)
            if wanted and not all(line in wanted for line in lines):
                found.append(f"{name} has lines that an undisturbed run has not")
        elif not (reference / name).is_file():
            found.append(f"{name} is there, and not after an undisturbed run")
        elif _content(path, keys) != _content(reference / name, keys):
            found.append(f"{name} is not whole")
    return found + _damaged(place)


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not _is_shard(path)}


def _is_shard(path: Path) -> bool:
    """Of the expert cache, whose shards have random names and are only added to; `_cached` looks into them."""
    return path.suffix in (DATA, INDEX) and not path.name.startswith(".") and (path.parent / PART_FILE).is_file()


def _cached(place: Path) -> dict[str, int]:
    """Images of each part of all expert caches."""
    folders = [marker.parent for marker in place.rglob(MARKER)]
    parts = [part for folder in folders for part in survey(CacheFolder(folder, make=False))]
    return {part.name: part.images for part in parts}


def _upwards(name: str) -> list[Path]:
    return [Path(name), *Path(name).parents[:-1]]


def _in_checkpoint(name: str) -> bool:
    return any(_CHECKPOINT.fullmatch(part) for part in Path(name).parts)


def _damaged(place: Path) -> list[str]:
    folders = [path for path in place.rglob("checkpoint-*") if path.is_dir() and _CHECKPOINT.fullmatch(path.name)]
    wrong = {path: damage(path, checksums=True) for path in folders}
    found = [f"{path.relative_to(place)} is damaged: {reason}" for path, reason in wrong.items() if reason is not None]
    for marker in place.rglob(MARKER):
        for part in survey(CacheFolder(marker.parent, make=False), read_records=True):
            # The end of an index may be torn, and is passed over; a record that an entry names may not.
            found += [
                problem for problem in part.problems if "no whole block" not in problem and "cut short" not in problem
            ]
    return found


def _bytes(path: Path) -> bytes:
    return path.read_bytes()


def _content(path: Path, keys: Collection[str]) -> Any:
    if path.suffix == ".jsonl":
        return _lines(path, keys)
    if path.suffix in (".json", ".done"):
        try:
            return _without(json.loads(_bytes(path)), keys)
        except ValueError:
            return "no JSON"
    return _bytes(path)


def _lines(path: Path, keys: Collection[str]) -> list[Any]:
    """Of JSON lines; one that is cut short is left out."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            lines.append(_without(json.loads(line), keys))
        except ValueError:
            continue
    return lines


def _without(value: Any, keys: Collection[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(entry, keys) for key, entry in value.items() if key not in keys}
    return [_without(entry, keys) for entry in value] if isinstance(value, list) else value
