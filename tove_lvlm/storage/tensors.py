"""Tensors on disk: atomic writes, reading without unpickling, strict loading.

See docs/design.md, "Saved towers".
"""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from .atomic import atomic_file
from .files import WeightsError, first_names
from .layout import PICKLED, weight_files

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Those that a command line or a config can ask for."""


def save_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as safetensors, atomically.

    Args:
        path: File to write.
        tensors: Any shapes and dtypes.
        metadata: Strings kept in the file's header.
    """
    # safetensors refuses tensors that share memory and such that are not contiguous; a copy is neither.
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_file(path) as temporary:
        save_file(copies, temporary, metadata={"format": "pt", **(metadata or {})})


def load_tensors(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
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
        tensors.update(_load_pickled(file) if file.suffix in PICKLED else _load_safetensors(file))
    return tensors


def _load_safetensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(file, device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        size = file.stat().st_size
        raise WeightsError(f"weights `{file}` ({size} bytes) are truncated or not safetensors: {error}") from error


def _load_pickled(file: Path) -> dict[str, torch.Tensor]:
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


def load_strict(module: nn.Module, tensors: Mapping[str, torch.Tensor], where: str | os.PathLike[str]) -> None:
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
    check_numbers({name: tensors[name] for name, _ in module.named_parameters()}, f"weights `{where}`")
    module.load_state_dict(dict(tensors), strict=True)


def check_numbers(tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Refuse weights that nothing can be computed with.

    Args:
        tensors: Parameters by name; such on the meta device are not looked at.
        where: What the message begins with.

    Raises:
        WeightsError: One holds NaN or infinity, or is stored as integers.
    """
    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() or tensor.is_complex()):
            raise WeightsError(f"{where}: `{name}` is stored as {tensor.dtype}; expected floating point")
        if not tensor.is_meta and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{where}: `{name}` holds NaN or infinity; the file is damaged, or its training failed")


def misfits(expected: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """What keeps `tensors` from being exactly `expected`: missing, unexpected or reshaped keys; empty when nothing.

    Args:
        expected: State dict of a module.
        tensors: From a file; only keys and shapes are looked at.
    """
    problems = []
    for kind, keys in (("missing", expected.keys() - tensors.keys()), ("unexpected", tensors.keys() - expected.keys())):
        if keys:
            problems.append(f"{len(keys)} {kind} ({first_names(keys)})")
    mismatched = [
        f"{key} {tuple(tensors[key].shape)} on disk, {tuple(expected[key].shape)} expected"
        for key in sorted(expected.keys() & tensors.keys())
        if tensors[key].shape != expected[key].shape
    ]
    if mismatched:
        problems.append(f"{len(mismatched)} of another shape ({first_names(mismatched, limit=2)})")
    return problems
