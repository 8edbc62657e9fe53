"""A tower's files without what was trained for its detached experts: as if it had never had them.

Gone are the experts' transfers, mean terms in their places and their rows of the gate's last layer; every other byte is
kept. The gate's softmax runs over the experts that are left, as it does where the others are masked.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import UserError
from .experts import MEAN_TERMS, tower_prefix, vision_block
from .tensor_files import TensorAt, read_bytes

GATE_OUT = ("gate.fc2.weight", "gate.fc2.bias")
"""The tensors that have a row for each expert."""


def check_forgettable(config: Mapping[str, Any], folder: Path, detached: Sequence[str]) -> None:
    """Refuse where nothing sensible would be left.

    Args:
        config: Content of the checkpoint's config.json.
        folder: Named in the error.
        detached: The experts to forget.

    Raises:
        UserError: All experts are to go, or the tower concatenates them.
    """
    vision = vision_block(dict(config), folder)
    if vision.get("fusion", {}).get("kind") == "concat":
        raise UserError(
            f"`{folder}` concatenates its experts (`fusion.kind: concat`): without one its tokens are narrower than "
            "the projector takes, so it can be detached and not forgotten"
        )
    if len(detached) == len(vision["experts"]):
        raise UserError(
            f"`{folder}` would have no expert left, so it would be its CLIP alone; detach them without --forget, or "
            "merge them with `tove merge`"
        )


@contextlib.contextmanager
def remaining_tensors(
    tensors: Mapping[str, TensorAt], names: Sequence[str], detached: Sequence[str], working: Path
) -> Iterator[dict[str, TensorAt]]:
    """The tensors without those of the detached experts, the gate's last layer with the other experts' rows.

    Args:
        tensors: Of the whole checkpoint.
        names: All experts, in the order of the gate's columns.
        detached: Those to leave out.
        working: Folder for a file that is gone at the end.
    """
    prefix = tower_prefix(tensors) or ""
    own = tuple(f"{prefix}{part}{name}." for name in detached for part in ("experts.", "tove_fusion.transfers."))
    own += (f"{prefix}{MEAN_TERMS}",)
    remaining = {name: at for name, at in tensors.items() if not name.startswith(own)}
    kept = [row for row, name in enumerate(names) if name not in detached]
    file = working / ".gate"
    try:
        with open(file, "xb") as stream:
            for name in (f"{prefix}tove_fusion.{part}" for part in GATE_OUT):
                remaining[name] = _rows(remaining[name], kept, stream, file)
        yield remaining
    finally:
        file.unlink(missing_ok=True)


def _rows(tensor: TensorAt, kept: Sequence[int], stream: Any, file: Path) -> TensorAt:
    content, size = b"".join(read_bytes(tensor)), tensor.num_bytes // tensor.shape[0]
    start = stream.tell()
    stream.write(b"".join(content[row * size : (row + 1) * size] for row in kept))
    stream.flush()
    return TensorAt(file, tensor.dtype, (len(kept), *tensor.shape[1:]), start, len(kept) * size)


def drop_experts(config: dict[str, Any], folder: Path, detached: Sequence[str]) -> None:
    """Take the experts out of a config.json's content.

    Args:
        config: Changed in place.
        folder: Named in the error.
        detached: The experts.
    """
    vision = vision_block(config, folder)
    vision["experts"] = [entry for entry in vision["experts"] if entry["name"] not in detached]
    vision["detached"] = []
    vision["mean_terms"] = []


def drop_sources(content: dict[str, Any], detached: Sequence[str]) -> None:
    """Take the experts out of sources.json's content.

    Args:
        content: Changed in place.
        detached: The experts.
    """
    content["experts"] = {name: source for name, source in content["experts"].items() if name not in detached}


def drop_settings(model_info: dict[str, Any], detached: Sequence[str]) -> None:
    """Take the experts out of MODEL_FILE's content.

    Args:
        model_info: Changed in place; its tower may be unknown.
        detached: The experts.
    """
    if model_info.get("tower"):
        model_info["tower"]["experts"] = [name for name in model_info["tower"]["experts"] if name not in detached]
