"""How a trained gate uses its freedom: mean mass, spread over tokens, and the mean at each place of the grid.

Shapes: B images, N tokens, K experts, Y X the token grid.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from tove_lvlm.data.images import read_image, to_pixels
from tove_lvlm.inference.chat import Chat
from tove_lvlm.tower.gate_statistics import first_counts
from tove_lvlm.tower.modeling import ToVEVisionModel
from tove_lvlm.tower.recorder import find_tower


@torch.inference_mode()
def gate_statistics(talk: Chat, images: Sequence[Path]) -> dict:
    """Statistics over all tokens of some images; empty for a model without a gate.

    Returns:
        For each expert `mass` (mean probability), `spread` (standard deviation over tokens), `first` (share of tokens
        where it is the largest) and `by_column` (mean probability in each column of the grid, left to right).
    """
    tower = find_tower(talk.model)
    if tower is None or not tower.expert_names or not hasattr(tower.tove_fusion, "gate"):
        return {}
    gate_BNK = read_gate(talk, tower, images)
    side = tower.config.side
    first_K = first_counts(gate_BNK) / gate_BNK[..., 0].numel()
    column_XK = gate_BNK.unflatten(1, (side, side)).mean((0, 1))
    return {
        name: {
            "mass": gate_BNK[..., k].mean().item(),
            "spread": gate_BNK[..., k].std().item(),
            "first": first_K[k].item(),
            "by_column": [round(value, 4) for value in column_XK[:, k].tolist()],
        }
        for k, name in enumerate(tower.expert_names)
    }


@torch.inference_mode()
def read_gate(talk: Chat, tower: ToVEVisionModel, images: Sequence[Path]) -> torch.Tensor:
    """The gate's probabilities for some images, (B, N, K) float64."""
    pixels = [to_pixels(read_image(path), talk.processor.image_processor, talk.image_aspect_ratio) for path in images]
    chunks = torch.stack(pixels).to(next(tower.parameters())).split(64)
    return torch.cat([tower(chunk).gate_probs for chunk in chunks]).double()
