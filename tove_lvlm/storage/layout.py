"""Which files hold the weights of a folder, whether they are whole, and their fingerprint.

Nothing here imports torch but for the fingerprint of tensors in memory.

See docs/design.md, "Saved towers".
"""

import fnmatch
import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .files import MissingWeightsError, PartialWeightsError, WeightsError, first_names, load_json

if TYPE_CHECKING:
    import torch

STANDARD_NAMES = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
"""What transformers, timm and open_clip call the weights of a folder, in the order in which one is chosen."""
INDEX = ".index.json"
"""Ending of the file that names the shards of a standard name."""
PICKLED = (".pth", ".pt", ".bin", ".ckpt")
WEIGHT_SUFFIXES = (".safetensors", *PICKLED)


def weight_files(path: str | os.PathLike[str]) -> list[Path]:
    """The files that hold the weights of `path`, sorted.

    Args:
        path: One weight file, or a folder with one of `STANDARD_NAMES`, whole or in shards; the first one counts.

    Raises:
        MissingWeightsError: There are none.
        PartialWeightsError: A shard is missing.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise MissingWeightsError(f"weights `{path}` do not exist: no such file or folder")
    for name in STANDARD_NAMES:
        if (path / name).is_file():
            return [path / name]
        index = path / f"{name}{INDEX}"
        if index.is_file():
            shards = [path / shard for shard in shard_names(index)]
            for shard in shards:
                if not shard.is_file():
                    raise PartialWeightsError(f"weights `{path}`: shard `{shard.name}` is missing (named by {index})")
            return shards
    others = sorted(entry.name for entry in path.iterdir() if entry.suffix in WEIGHT_SUFFIXES)
    hint = f"; it has {first_names(others)}, which `file` can name" if others else ""
    raise MissingWeightsError(
        f"folder `{path}` holds no weights: expected {' or '.join(STANDARD_NAMES)}, whole or in shards{hint}"
    )


def standard_names(pattern: str | None) -> list[str]:
    """Those of `STANDARD_NAMES` that a pattern such as `open_clip_*` fits, in their order; all of them without one."""
    return [name for name in STANDARD_NAMES if pattern is None or fnmatch.fnmatchcase(name, pattern)]


def is_pattern(file: str | None) -> bool:
    """Whether `file` is a pattern of standard names and not a name."""
    return file is not None and "*" in file


def named_file(folder: Path, file: str | None) -> Path:
    """What `file` names in a folder; the folder itself when it names nothing.

    Args:
        folder: Of a repository, or any other with weights.
        file: A name, or a pattern of standard names, of which the first that is there counts.

    Raises:
        MissingWeightsError: No name that the pattern fits is there.
    """
    if file is None or not is_pattern(file):
        return folder / (file or "")
    for name in standard_names(file):
        if (folder / name).is_file():
            return folder / name
    raise MissingWeightsError(f"folder `{folder}` holds none of {', '.join(standard_names(file))}")


def shard_names(index: str | os.PathLike[str]) -> list[str]:
    """Names of the shards that an index file lists, sorted.

    Raises:
        WeightsError: It is no index.
    """
    content = load_json(index)
    names = content.get("weight_map", {}).values() if isinstance(content, dict) else ()
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise WeightsError(f"file `{index}` is no index of shards: expected `weight_map` with a file for each tensor")
    return sorted(set(names))


def check_whole(file: Path) -> None:
    """Look at a weight file's own table of contents: a download that was cut off is found without reading it all.

    Raises:
        WeightsError: A safetensors file is not as long as its header says, or a zipped torch file has lost its end.
            Other formats are not looked at.
    """
    size = file.stat().st_size
    with open(file, "rb") as stream:
        start = stream.read(8)
        if file.suffix == ".safetensors":
            length = int.from_bytes(start, "little") if len(start) == 8 else size
            try:
                header = json.loads(stream.read(length)) if length < size else {}
                ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            except (ValueError, TypeError, LookupError, AttributeError):
                ends = []
            if not ends or 8 + length + max(ends) != size:
                raise WeightsError(f"weights `{file}` ({size} bytes) are truncated or not safetensors")
        elif file.suffix in PICKLED and (size == 0 or (start[:4] == b"PK\x03\x04" and not zipfile.is_zipfile(file))):
            raise WeightsError(f"weights `{file}` ({size} bytes) are truncated")


def fingerprint(source: "str | os.PathLike[str] | Mapping[str, torch.Tensor]") -> str:
    """SHA-256 that identifies weights, as hex.

    Args:
        source: A weight file (what `sha256sum` prints), a folder (over its weight files in order; one file: that
            file's), or tensors (over names, dtypes, shapes and bytes).

    Raises:
        MissingWeightsError: The file or folder has no weights.
    """
    digest = hashlib.sha256()
    if isinstance(source, Mapping):
        import torch

        for name in sorted(source):
            tensor = source[name].detach().cpu().contiguous()
            digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()
    for file in weight_files(source):
        with open(file, "rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()
