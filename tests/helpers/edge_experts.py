"""Edge experts, and a picture for them."""

import torch

from tove_lvlm.experts import build_expert
from tove_lvlm.experts.preprocess import normalised

SIZE = 32
RGB = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def expert_of(family: str, **fields):
    """An expert of 32 pixels, its weights random."""
    return build_expert({"name": "edges", "family": family, "image_size": SIZE, **fields})


def seen(expert) -> torch.Tensor:
    """The picture as the tower hands it to the expert."""
    return normalised(RGB, expert.spec.preprocessing)
