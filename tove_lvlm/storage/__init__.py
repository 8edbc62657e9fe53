"""Files with weights: where to write, atomic writes and locks, which files there are, reading without unpickling,
strict loading, fingerprints.

Where weights come from is the subject of `weights`. What needs torch loads on first use (PEP 562), so that a
configuration is checked before torch is loaded.

See docs/design.md, "Saved towers".
"""

from typing import TYPE_CHECKING, Any

from .atomic import atomic_dir, atomic_file, clear_leftovers, sync_to_disk, temporary_folder
from .files import (
    ASSETS,
    MissingWeightsError,
    PartialWeightsError,
    WeightsError,
    load_json,
    save_json,
    short_names,
    to_json,
)
from .layout import (
    INDEX,
    STANDARD_NAMES,
    WEIGHT_SUFFIXES,
    check_whole,
    fingerprint,
    is_pattern,
    named_file,
    shard_names,
    standard_names,
    weight_files,
)
from .locks import lock_folder
from .outputs import (
    disk_message,
    disk_reason,
    new_folder,
    refuse_filled,
    refuse_inputs,
    run_folder,
    told_disk_errors,
)

if TYPE_CHECKING:
    from .tensors import check_numbers, load_strict, load_tensors, misfits, save_tensors

__all__ = [
    "ASSETS",
    "INDEX",
    "STANDARD_NAMES",
    "WEIGHT_SUFFIXES",
    "MissingWeightsError",
    "PartialWeightsError",
    "WeightsError",
    "atomic_dir",
    "atomic_file",
    "check_numbers",
    "check_whole",
    "clear_leftovers",
    "disk_message",
    "disk_reason",
    "fingerprint",
    "is_pattern",
    "load_json",
    "load_strict",
    "load_tensors",
    "lock_folder",
    "misfits",
    "named_file",
    "new_folder",
    "refuse_filled",
    "refuse_inputs",
    "run_folder",
    "save_json",
    "save_tensors",
    "shard_names",
    "short_names",
    "standard_names",
    "sync_to_disk",
    "temporary_folder",
    "to_json",
    "told_disk_errors",
    "weight_files",
]

_OF_TENSORS = ("check_numbers", "load_strict", "load_tensors", "misfits", "save_tensors")


def __getattr__(name: str) -> Any:
    if name not in _OF_TENSORS:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    from . import tensors

    return getattr(tensors, name)
