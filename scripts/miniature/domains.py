"""Stage `domains`: one network from which the routing benchmark makes depth experts that are right in a domain only.

Six channels for each pixel: how near it is; how near an observer would say who takes large objects for near ones, which
is unrelated to the truth, since depth and apparent size are independent; logits of the domain of what is seen (neutral,
warm colours, cool colours); and how bright the ground of the whole picture is. The files are those of the expert family
`dense_vit`.

Shapes: B images, O object slots, H W pixels, S scenes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from tove_lvlm.world.render import Rendered, relative_depth
from tove_lvlm.world.scene import COLORS, DEPTH_RANGE, SIZE_RANGE, Scenes

from .common import Pool, Report, fit, normalised
from .dense import DenseViT, object_weight, predict, save_dense

STEPS, BATCH, RATE, SEED = 1_800, 48, 2e-3, 24
CHANNELS = {"depth": 1, "depth_by_size": 1, "domain": 3, "ground": 1}
NEUTRAL, WARM, COOL = range(3)
DOMAIN_OF = {"red": WARM, "yellow": WARM, "blue": COOL, "cyan": COOL, "green": NEUTRAL, "purple": NEUTRAL}
GROUND_MIDDLE, GROUND_HALF_RANGE = 0.45, 0.15
"""Brightness of the ground, which is uniform between the two ends: see `world.scene`."""


def train(pool: Pool, out_dir: Path, report: Report) -> dict:
    """Train the network, save it to `out_dir`, return the stage's record."""
    torch.manual_seed(SEED)
    model = DenseViT(sum(CHANNELS.values()))

    def loss_of(index: np.ndarray) -> torch.Tensor:
        guess_BCHW = model(normalised(pool.train.rgb[index]))
        return _loss(guess_BCHW, targets(pool.train, pool.train_scenes, index), object_weight(pool.train, index))

    size = {"steps": STEPS, "batch": BATCH, "lr": RATE, "seed": SEED, "num_samples": len(pool.train)}
    record = fit("domains", [model], loss_of, **size, report=report)
    save_dense(model, sum(CHANNELS.values()), out_dir)
    record["parameters"] = sum(p.numel() for p in model.parameters())
    record["heldout"] = _figures(predict(model, pool.heldout.rgb), pool)
    return record


def targets(rendered: Rendered, scenes: Scenes, index: np.ndarray | slice) -> dict[str, torch.Tensor]:
    """What the channels should be, (B, H, W) each; `domain` is a class index."""
    slot_BHW = rendered.object_id[index]
    on_BHW, slot_BHW = slot_BHW >= 0, np.maximum(slot_BHW, 0)
    row = np.arange(len(slot_BHW))[:, None, None]
    depth_BHW = relative_depth(rendered.depth[index])
    by_size_BO = relative_depth(depth_by_size(scenes.size[index]))
    domain_BO = np.array([DOMAIN_OF[color] for color in COLORS])[scenes.color[index]]
    ground_B = (scenes.ground_color_S3[index].mean(axis=-1) - GROUND_MIDDLE) / GROUND_HALF_RANGE
    return {
        "depth": torch.from_numpy(depth_BHW),
        "depth_by_size": torch.from_numpy(np.where(on_BHW, by_size_BO[row, slot_BHW], depth_BHW)),
        "domain": torch.from_numpy(np.where(on_BHW, domain_BO[row, slot_BHW], NEUTRAL)),
        "ground": torch.from_numpy(ground_B.astype(np.float32))[:, None, None].expand(slot_BHW.shape),
    }


def depth_by_size(size: np.ndarray) -> np.ndarray:
    """Metres of DEPTH_RANGE, the largest object nearest."""
    share = np.clip((size - SIZE_RANGE[0]) / (SIZE_RANGE[1] - SIZE_RANGE[0]), 0, 1)
    near, far = DEPTH_RANGE
    return far * (near / far) ** share


def _loss(guess_BCHW: torch.Tensor, true: dict[str, torch.Tensor], weight_BHW: torch.Tensor) -> torch.Tensor:
    guess = dict(zip(CHANNELS, guess_BCHW.split(list(CHANNELS.values()), dim=1), strict=True))
    depth_BHW = sum(
        F.smooth_l1_loss(guess[name][:, 0], true[name], reduction="none", beta=0.1)
        for name in ("depth", "depth_by_size")
    )
    domain_BHW = F.cross_entropy(guess["domain"], true["domain"], reduction="none")
    ground = F.mse_loss(guess["ground"][:, 0], true["ground"])
    return ((depth_BHW + 0.1 * domain_BHW) * weight_BHW).mean() + 0.01 * ground


def _figures(guess_BCHW: torch.Tensor, pool: Pool) -> dict:
    true = targets(pool.heldout, pool.heldout_scenes, slice(None))
    on_BHW = torch.from_numpy(pool.heldout.object_id >= 0)
    guess = dict(zip(CHANNELS, guess_BCHW.split(list(CHANNELS.values()), dim=1), strict=True))
    figures = {}
    for name in ("depth", "depth_by_size"):
        pair = torch.stack([guess[name][:, 0][on_BHW], true[name][on_BHW]]).double()
        figures[f"{name}_object_correlation"] = round(float(torch.corrcoef(pair)[0, 1]), 4)
    right_BHW = guess["domain"].argmax(dim=1) == true["domain"]
    figures["domain_on_objects"] = round(float(right_BHW[on_BHW].double().mean()), 4)
    pair = torch.stack([guess["ground"].mean((1, 2, 3)), true["ground"].mean((1, 2))]).double()
    figures["ground_correlation"] = round(float(torch.corrcoef(pair)[0, 1]), 4)
    return figures
