"""Files with weights: atomic writes, reading without unpickling, strict loading, fingerprints. DESIGN.md section 2.

A weight source is one string everywhere: a hub id, a file or folder, or `shipped:NAME` for a folder of the package's
own assets. Nothing heavy is imported at the top, so that a configuration is checked before torch is loaded.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

ASSETS = Path(__file__).resolve().parent / "assets"
_SHIPPED = "shipped:"
_SINGLE = ("model.safetensors", "pytorch_model.bin")
_PICKLED = (".pth", ".pt", ".bin", ".ckpt")


class WeightsError(UserError):
    """Weights cannot be read or do not fit; the message names the file."""


class MissingWeightsError(WeightsError, FileNotFoundError):
    """Weights, or a file beside them, are not there."""


# ---- atomic writes ----


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[Path]:
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
def atomic_dir(path: str | os.PathLike) -> Iterator[Path]:
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


def refuse_filled(folder: str | os.PathLike) -> None:
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
    path: str | os.PathLike, tensors: "Mapping[str, torch.Tensor]", metadata: Mapping[str, str] | None = None
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


def save_json(path: str | os.PathLike, value: Any) -> None:
    """Write JSON, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_json(path: str | os.PathLike) -> Any:
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


def weight_files(path: str | os.PathLike) -> list[Path]:
    """The files that hold the weights of `path`, sorted.

    Args:
        path: One weight file, or a folder with `model.safetensors` or `pytorch_model.bin`, whole or in shards.

    Raises:
        MissingWeightsError: There are none, or a shard is missing.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise MissingWeightsError(f"weights `{path}` do not exist: no such file or folder")
    for name in _SINGLE:
        if (path / name).is_file():
            return [path / name]
        index = path / f"{name}.index.json"
        if index.is_file():
            shards = sorted({path / shard for shard in load_json(index)["weight_map"].values()})
            for shard in shards:
                if not shard.is_file():
                    raise MissingWeightsError(f"weights `{path}`: shard `{shard.name}` is missing (named by {index})")
            return shards
    raise MissingWeightsError(f"folder `{path}` holds no weights: expected {' or '.join(_SINGLE)}, whole or in shards")


def load_tensors(path: str | os.PathLike) -> "dict[str, torch.Tensor]":
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


def load_strict(module: "nn.Module", tensors: "Mapping[str, torch.Tensor]", where: str | os.PathLike) -> None:
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


def misfits(own: "Mapping[str, torch.Tensor]", tensors: "Mapping[str, torch.Tensor]") -> list[str]:
    """What keeps `tensors` from being exactly `own`: missing keys, unexpected keys, other shapes; empty when nothing.

    Args:
        own: State dict of a module.
        tensors: From a file; only keys and shapes are looked at.
    """
    problems = []
    for kind, keys in (("missing", own.keys() - tensors.keys()), ("unexpected", tensors.keys() - own.keys())):
        if keys:
            problems.append(f"{len(keys)} {kind} ({_first(keys)})")
    mismatched = [
        f"{key} {tuple(tensors[key].shape)} on disk, {tuple(own[key].shape)} expected"
        for key in sorted(own.keys() & tensors.keys())
        if tensors[key].shape != own[key].shape
    ]
    if mismatched:
        problems.append(f"{len(mismatched)} of another shape ({_first(mismatched, limit=2)})")
    return problems


def fingerprint(source: "str | os.PathLike | Mapping[str, torch.Tensor]") -> str:
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
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()
    for file in weight_files(source):
        with open(file, "rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


# ---- sources ----


def resolve_source(source: str | os.PathLike, base: str | os.PathLike | None = None) -> str:
    """Absolute path of a weight source, or the hub id as it is.

    Args:
        source: `shipped:NAME`, a path, or a hub id (`name` or `owner/name` that is no path here).
        base: Folder that a path starting with ./ or ../ is relative to; other paths are relative to the working
            directory.

    Raises:
        MissingWeightsError: A path that does not exist and cannot be a hub id.
    """
    text = os.fspath(source)
    if text.startswith(_SHIPPED):
        path = ASSETS / text.removeprefix(_SHIPPED)
        if not path.exists():
            shipped = ", ".join(sorted(f"{_SHIPPED}{found.relative_to(ASSETS)}" for found in ASSETS.glob("*/*")))
            raise MissingWeightsError(f"`{text}` is not shipped with this package; shipped: {shipped or 'nothing'}")
        return str(path)
    path = Path(text).expanduser()
    if base is not None and text.startswith(("./", "../")):
        path = Path(base) / path
    if path.exists():
        return str(path.resolve())
    if isinstance(source, os.PathLike) or not is_hub_id(text):
        raise MissingWeightsError(f"`{text}` does not exist (looked at {path.absolute()})")
    return text


def is_hub_id(source: str) -> bool:
    """Whether a string can only be a name on the hub: it looks like one and nothing of that name is here."""
    looks_like_path = source.startswith((_SHIPPED, ".", "/", "~")) or source.count("/") > 1 or source.endswith("/")
    is_file_name = Path(source).suffix in (".safetensors", ".yaml", ".yml", ".json", *_PICKLED)
    return bool(source) and not looks_like_path and not is_file_name and not Path(source).exists()


def fetch(source: str, revision: str | None = None, weights: bool = True) -> Path:
    """Local file or folder of a resolved source; a hub id is downloaded, or found in the hub's cache when offline.

    Args:
        source: What `resolve_source` returned.
        revision: Branch, tag or commit on the hub.
        weights: Whether the weights are wanted, or only the JSON files.

    Raises:
        MissingWeightsError: The hub id is neither in the cache nor to be had.
    """
    if not is_hub_id(source):
        return Path(source)
    from huggingface_hub import snapshot_download

    patterns: Iterable[list[str]] = (["*.json", "*.safetensors"], ["*.json", "*.bin"]) if weights else (["*.json"],)
    try:
        for allowed in patterns:
            folder = Path(snapshot_download(source, revision=revision, allow_patterns=allowed))
            if any(folder.glob(allowed[-1])):
                return folder
    except Exception as error:  # the hub's client raises its own, httpx's and OSError
        raise MissingWeightsError(
            f"`{source}` is no file or folder here and cannot be had from the hub ({type(error).__name__}); give a "
            "folder, or download it once with network"
        ) from error
    raise MissingWeightsError(f"hub repository `{source}` holds none of {', '.join(p[-1] for p in patterns)}")


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
