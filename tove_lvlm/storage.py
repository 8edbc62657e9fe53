"""Files with weights: atomic writes, reading without unpickling, strict loading, fingerprints.

Where weights come from is the subject of `sources`. Nothing heavy is imported at the top, so that a configuration is
checked before torch is loaded.

See docs/design.md, "Saved towers".
"""

import contextlib
import fnmatch
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

ASSETS = Path(__file__).resolve().parent / "assets"
"""The package's own folder of files that are no code."""
STANDARD_NAMES = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
"""What transformers, timm and open_clip call the weights of a folder, in the order in which one is chosen."""
INDEX = ".index.json"
"""Ending of the file that names the shards of a standard name."""
_PICKLED = (".pth", ".pt", ".bin", ".ckpt")
WEIGHT_SUFFIXES = (".safetensors", *_PICKLED)


class WeightsError(UserError):
    """Weights cannot be read or do not fit; the message names the file."""


class MissingWeightsError(WeightsError, FileNotFoundError):
    """Weights, or a file beside them, are not there."""


class PartialWeightsError(MissingWeightsError):
    """Some of the weights are there, and not all."""


# ---- atomic writes ----


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there takes its place on success, else nothing changes.

    Args:
        path: File to write; its folder is made when it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        sync_to_disk(temporary)
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files only their owner can read
        os.replace(temporary, path)
        sync_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_dir(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder beside `path`; it takes its place on success (an older one is replaced as a whole).

    Args:
        path: Folder to write.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    retired = temporary.with_suffix(".old")
    try:
        yield temporary
        for entry in sorted(temporary.rglob("*")):
            sync_to_disk(entry)
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            os.replace(path, retired)
        os.replace(temporary, path)
        sync_to_disk(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():
            shutil.rmtree(retired, ignore_errors=True)
        elif retired.exists():
            os.replace(retired, path)


def refuse_filled(folder: str | os.PathLike[str]) -> None:
    """Nothing that is there already may be replaced by a command that makes a folder.

    Raises:
        UserError: The folder has something in it, or is a file.
    """
    folder = Path(folder)
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise UserError(f"output `{folder}` exists already; name a new folder, or remove it first")


def save_tensors(
    path: str | os.PathLike[str], tensors: "Mapping[str, torch.Tensor]", metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as safetensors, atomically.

    Args:
        path: File to write.
        tensors: Any shapes and dtypes.
        metadata: Strings kept in the file's header.
    """
    from safetensors.torch import save_file

    # safetensors refuses tensors that share memory and such that are not contiguous; a copy is neither.
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_file(path) as temporary:
        save_file(copies, temporary, metadata={"format": "pt", **(metadata or {})})


def save_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_json(path: str | os.PathLike[str]) -> Any:
    """Read JSON.

    Raises:
        MissingWeightsError: There is no such file.
        WeightsError: It is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingWeightsError(f"file `{path}` does not exist") from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"file `{path}` is not readable as JSON: {error}") from error


# ---- reading ----


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
    hint = f"; it has {_first(others)}, which `file` can name" if others else ""
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
        elif file.suffix in _PICKLED and (size == 0 or (start[:4] == b"PK\x03\x04" and not zipfile.is_zipfile(file))):
            raise WeightsError(f"weights `{file}` ({size} bytes) are truncated")


def load_tensors(path: str | os.PathLike[str]) -> "dict[str, torch.Tensor]":
    """Read all tensors of a weight file or folder, on the CPU, in the dtype on disk. Nothing is unpickled.

    Args:
        path: As for `weight_files`; safetensors, or a torch file whose top level (or `state_dict`, or `model`) is a
            dictionary of tensors.

    Raises:
        MissingWeightsError: There is nothing there.
        WeightsError: A file is truncated, unreadable or holds something else.
    """
    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(path):
        tensors.update(_load_pickled(file) if file.suffix in _PICKLED else _load_safetensors(file))
    return tensors


def _load_safetensors(file: Path) -> "dict[str, torch.Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file, device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        size = file.stat().st_size
        raise WeightsError(f"weights `{file}` ({size} bytes) are truncated or not safetensors: {error}") from error


def _load_pickled(file: Path) -> "dict[str, torch.Tensor]":
    import torch

    try:
        # mmap=False: a truncated file must fail here, not when a weight is first used.
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a bad file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"weights `{file}` cannot be read with torch.load(weights_only=True), so they are truncated or hold more "
            f"than tensors: {reason}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise WeightsError(f"weights `{file}`: expected a dictionary of tensors, found {type(loaded).__name__}")
    return loaded


def load_strict(module: "nn.Module", tensors: "Mapping[str, torch.Tensor]", where: str | os.PathLike[str]) -> None:
    """Load `tensors` into `module`, every one of them and nothing less; on an error the module is unchanged.

    Args:
        module: Its parameters and persistent buffers keep their dtype and device.
        tensors: Its state dict.
        where: File or folder named in the message.

    Raises:
        WeightsError: Missing, unexpected or mismatched keys; the first of each kind are named.
    """
    problems = misfits(module.state_dict(), tensors)
    if problems:
        raise WeightsError(f"weights `{where}` do not fit {type(module).__name__}: {'; '.join(problems)}")
    module.load_state_dict(dict(tensors), strict=True)


def misfits(expected: "Mapping[str, torch.Tensor]", tensors: "Mapping[str, torch.Tensor]") -> list[str]:
    """What keeps `tensors` from being exactly `expected`: missing, unexpected or reshaped keys; empty when nothing.

    Args:
        expected: State dict of a module.
        tensors: From a file; only keys and shapes are looked at.
    """
    problems = []
    for kind, keys in (("missing", expected.keys() - tensors.keys()), ("unexpected", tensors.keys() - expected.keys())):
        if keys:
            problems.append(f"{len(keys)} {kind} ({_first(keys)})")
    mismatched = [
        f"{key} {tuple(tensors[key].shape)} on disk, {tuple(expected[key].shape)} expected"
        for key in sorted(expected.keys() & tensors.keys())
        if tensors[key].shape != expected[key].shape
    ]
    if mismatched:
        problems.append(f"{len(mismatched)} of another shape ({_first(mismatched, limit=2)})")
    return problems


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


def _first(names: Iterable[str], limit: int = 3) -> str:
    names = sorted(names)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def sync_to_disk(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, so that a power cut does not lose it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
