"""What the teacher gave for an image, on disk: where an epoch is repeated, the experts run in the first one only.

Worth it where images are seen more than once and the teacher costs more than reading its tokens: in the miniature the
teacher is two thirds of a step. At full size an image's tokens are over a megabyte.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ...storage import atomic_file, clear_leftovers


class TargetCache:
    """One small safetensors file for each image, named by the image's bytes.

    Args:
        folder: Shared by any number of runs; made when absent.
        **identity: All that the teacher's answer depends on besides the image: weights, architecture, preprocessing,
            dtype. Another identity is another sub-folder.
    """

    def __init__(self, folder: str | Path, **identity):
        text = json.dumps(identity, sort_keys=True, default=str)
        self.folder = Path(folder) / hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        for subfolder in self.folder.iterdir():
            clear_leftovers(subfolder)

    def key(self, image: Path) -> str:
        """Name of an image: SHA-256 of its bytes."""
        return hashlib.sha256(image.read_bytes()).hexdigest()

    def get(self, key: str) -> dict[str, torch.Tensor] | None:
        """What was put there, or None; a file cut short counts as absent."""
        try:
            return load_file(self._path(key))
        except (OSError, SafetensorError):
            return None

    def put(self, key: str, tensors: dict[str, torch.Tensor]) -> None:
        """Keep tensors; another rank may be putting the same ones."""
        with atomic_file(self._path(key), flush=False) as temporary:  # to flush each costs more than to make it again
            save_file({name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}, temporary)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"
