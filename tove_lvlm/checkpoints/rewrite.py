"""Weights and JSON files of a checkpoint written anew with a change, every other byte kept."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..storage import WeightsError, weight_files
from .tensor_files import TensorAt, read_header, write_file

INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


def arrange(layout: Path, target: Path, tensors: Mapping[str, TensorAt], beside: str | None = None) -> None:
    """Write tensors in the files, and in the order, that another folder has them in.

    Args:
        layout: Folder with safetensors, whole or in shards; a tensor of it that is not in `tensors` is left out.
        target: Where.
        tensors: Name to where its bytes are: in `layout`, or elsewhere, also of another shape.
        beside: A tensor of `layout` in whose file those go that have no place there.

    Raises:
        WeightsError: A tensor has no place in `layout`, or the weights are not safetensors.
    """
    remaining = dict(tensors)
    headers = {file: read_header(file) for file in weight_files(layout)}
    before = {name: at for header in headers.values() for name, at in header.tensors.items()}
    added: dict[str, str] = {}
    for file, header in headers.items():
        own_tensors = {name: remaining.pop(name) for name in header.tensors if name in remaining}
        if beside in header.tensors:
            added = {name: file.name for name in remaining if name not in before}
            own_tensors |= {name: remaining.pop(name) for name in added}
        if own_tensors == header.tensors:
            shutil.copyfile(file, target / file.name)
        elif own_tensors:
            write_file(target / file.name, own_tensors, header.metadata)
    if remaining:
        raise WeightsError(
            f"`{layout}` has no place for {len(remaining)} tensors ({', '.join(sorted(remaining)[:3])}, ...)"
        )
    if index := index_of(layout):
        edit_json(index, target, lambda index: _correct_index(index, before, tensors, added))


def index_of(folder: Path) -> Path | None:
    """The index of the shards, where the weights are in shards."""
    index = folder / INDEX
    return index if index.is_file() and not (folder / _SINGLE).is_file() else None


def edit_json(path: Path, target: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Copy a JSON file with a change, laid out as transformers and this package lay it out."""
    text = path.read_text(encoding="utf-8")
    value = json.loads(text)
    edit(value)
    end = "\n" if text.endswith("\n") else ""
    (target / path.name).write_text(json.dumps(value, indent=2) + end, encoding="utf-8")


def _correct_index(
    index: dict[str, Any], before: Mapping[str, TensorAt], after: Mapping[str, TensorAt], added: Mapping[str, str]
) -> None:
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if name in after} | dict(added)
    sizes: dict[str, Callable[[TensorAt], int]] = {
        "total_size": lambda at: at.num_bytes,
        "total_parameters": lambda at: at.numel,
    }
    for key, size in sizes.items():
        if key in index.get("metadata", {}):
            index["metadata"][key] += sum(map(size, after.values())) - sum(map(size, before.values()))
