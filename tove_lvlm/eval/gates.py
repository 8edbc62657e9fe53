"""Who is asked: mean gate mass of each expert over a set of images.

Shapes: B images, N tokens, K experts.

See docs/design.md, "Usage".
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ..data.images import read_image, to_pixels
from ..tower import gate_statistics
from ..tower.recorder import find_tower


@torch.inference_mode()
def mean_gate_mass(
    model: nn.Module,
    image_processor,
    images: Sequence[str | Path],
    image_aspect_ratio: str = "pad",
    batch_size: int = 64,
) -> dict[str, float]:
    """Mean over all tokens of all images of the gate's probability for each expert; they sum to 1.

    Args:
        model: A tower, or any model that holds one; one without a tower gives an empty dictionary.
        image_processor: The tower's.
        images: Files.
        image_aspect_ratio: As in training.
        batch_size: Images per forward.

    Raises:
        DataError: An image cannot be read.
    """
    tower = find_tower(model)
    if tower is None or not images:
        return {}
    like = next(tower.parameters())
    total_K = torch.zeros(len(tower.expert_names), dtype=torch.float64)
    for start in range(0, len(images), batch_size):
        chunk = images[start : start + batch_size]
        pixels_B3HW = torch.stack([to_pixels(read_image(p), image_processor, image_aspect_ratio) for p in chunk])
        gate_BNK = tower(pixels_B3HW.to(like)).gate_probs
        total_K += gate_statistics.mass(gate_BNK).sum(dim=0).double().cpu()
    return {name: float(mass) / len(images) for name, mass in zip(tower.expert_names, total_K, strict=True)}
