"""Pictures of noise."""

from pathlib import Path

import numpy as np
from PIL import Image


def paint(path: Path, seed: int, size: tuple[int, int] = (24, 20)) -> None:
    """Write a picture of `size`, width and height; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise_HW3 = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise_HW3).save(path)
