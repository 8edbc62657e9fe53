"""Whether a gate trusts the right expert: its mass on objects that one of two experts is wrong about.

Shapes: S scenes, N tokens, Y X the token grid, O object slots.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from tove_lvlm.inference.chat import Chat
from tove_lvlm.tower.recorder import find_tower
from tove_lvlm.world.render import render
from tove_lvlm.world.scene import COLORS, Scenes

from .gate_statistics import read_gate

COLORS_OF = {"warm": ("red", "yellow"), "cool": ("blue", "cyan")}
GROUND = (0.40, 0.50)
"""Brightness below which a picture's ground is dark and above which it is bright."""
COVERED = 0.5
"""Share of a token's patch from which on it belongs to an object."""


def domain_tokens(scenes: Scenes, side: int) -> dict[str, torch.Tensor]:
    """Which tokens show an object of a domain that one expert alone is right about; (S, N) bool by domain."""
    object_SHW = render(scenes).object_id
    ground_S = scenes.ground_color_S3.mean(axis=-1)

    def covered(slots_SO: np.ndarray) -> torch.Tensor:
        slot_SHW = np.maximum(object_SHW, 0)
        on_SHW = (object_SHW >= 0) & slots_SO[np.arange(len(scenes))[:, None, None], slot_SHW]
        return F.adaptive_avg_pool2d(torch.from_numpy(on_SHW).float(), side).flatten(1) >= COVERED

    tokens = {
        name: covered(np.isin(scenes.color, [COLORS.index(color) for color in colors]))
        for name, colors in COLORS_OF.items()
    }
    anything = covered(np.ones_like(scenes.color, dtype=bool))
    tokens["bright"] = anything & torch.from_numpy(ground_S > GROUND[1])[:, None]
    tokens["dark"] = anything & torch.from_numpy(ground_S < GROUND[0])[:, None]
    return tokens


def mass_right(talk: Chat, scenes: Scenes, images: Sequence[Path], experts: dict[str, str]) -> dict:
    """The gate's mean mass on the expert that is right, over the objects that the other is wrong about.

    Args:
        talk: The trained model.
        scenes: S scenes.
        images: Their pictures.
        experts: Domain -> name of the expert that is right there.

    Returns:
        `by_domain`, the mean of it, `mass_right`, and `spread`, the standard deviation over all tokens.
    """
    tower = find_tower(talk.model)
    gate_SNK = read_gate(talk, tower, images)
    tokens = domain_tokens(scenes, tower.config.side)
    by_domain = {
        domain: gate_SNK[..., tower.expert_names.index(name)][tokens[domain]].mean().item()
        for domain, name in experts.items()
    }
    return {
        "mass_right": sum(by_domain.values()) / len(by_domain),
        "by_domain": by_domain,
        "spread": gate_SNK.std((0, 1)).mean().item(),
    }
