"""Stages `depth`, `normals`, `edges`: the low-level experts, small ViTs with one linear head per patch.

The files have the keys of the expert family `dense_vit`: `vit.*` and `head.*`.

Shapes: B images, N tokens, D width, C channels, H W pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import save_file

from tove_lvlm.world.render import Rendered, relative_depth
from tove_lvlm.world.scene import IMAGE_SIZE

from .common import (
    DEPTH,
    HEADS,
    MEAN,
    PATCH,
    SIDE,
    STD,
    WIDTH,
    Pool,
    Report,
    fit,
    half,
    normalised,
    sincos_positions,
    write_json,
)

OBJECT_WEIGHT = 5.0
"""How much more a pixel of an object counts: without it sky and ground win, there are more of them."""
EDGE_SLACK = 1
"""Pixels beside a true edge that are not punished as false, and within which a predicted edge counts as found."""


class DenseViT(torch.nn.Module):
    """timm's VisionTransformer without class token, and a linear head that writes each patch's pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer

        self.vit = VisionTransformer(
            img_size=IMAGE_SIZE,
            patch_size=PATCH,
            embed_dim=WIDTH,
            depth=DEPTH,
            num_heads=HEADS,
            class_token=False,
            global_pool="",
            num_classes=0,
        )
        self.head = torch.nn.Linear(WIDTH, PATCH * PATCH * channels)
        with torch.no_grad():
            self.vit.pos_embed.copy_(sincos_positions(WIDTH, SIDE)[None])
        self.vit.pos_embed.requires_grad_(False)

    def forward(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """Normalised pixels to the map (B, C, H, W)."""
        pixels_BNP = self.head(self.vit.forward_features(pixels_B3HW))
        return rearrange(pixels_BNP, "b (h w) (c p1 p2) -> b c (h p1) (w p2)", h=SIDE, w=SIDE, p1=PATCH, p2=PATCH)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """What one dense expert learns and how it is measured."""

    channels: int
    steps: int
    seed: int
    loss: Callable[[torch.Tensor, Rendered, np.ndarray], torch.Tensor]
    measure: Callable[[torch.Tensor, Rendered], dict]
    batch: int = 48
    lr: float = 2e-3


def train(stage: str, pool: Pool, out_dir: Path, report: Report) -> dict:
    """Train the expert named `stage`, save it to `out_dir`, return the stage's record."""
    target = TARGETS[stage]
    torch.manual_seed(target.seed)
    model = DenseViT(target.channels)

    def loss_of(index: np.ndarray) -> torch.Tensor:
        return target.loss(model(normalised(pool.train.rgb[index])), pool.train, index)

    size = {"steps": target.steps, "batch": target.batch, "lr": target.lr, "seed": target.seed}
    record = fit(stage, [model], loss_of, **size, num_samples=len(pool.train), report=report)
    save_dense(model, target.channels, out_dir)
    record["parameters"] = sum(p.numel() for p in model.parameters())
    record["heldout"] = target.measure(predict(model, pool.heldout.rgb), pool.heldout)
    return record


def save_dense(model: DenseViT, channels: int, out_dir: Path) -> None:
    """The weights and the config.json of the expert family `dense_vit`."""
    out_dir.mkdir(parents=True, exist_ok=True)
    save_file(half(model.state_dict()), out_dir / "model.safetensors")
    fields = {"width": WIDTH, "depth": DEPTH, "heads": HEADS, "patch_size": PATCH, "channels": channels}
    write_json(out_dir / "config.json", fields | {"image_size": IMAGE_SIZE, "mean": list(MEAN), "std": list(STD)})


@torch.no_grad()
def predict(model: DenseViT, rgb: np.ndarray) -> torch.Tensor:
    """The maps of uint8 pictures (S, H, W, 3), as (S, C, H, W)."""
    model.eval()
    return torch.cat([model(normalised(rgb[i : i + 128])) for i in range(0, len(rgb), 128)])


def object_weight(rendered: Rendered, index: np.ndarray | slice) -> torch.Tensor:
    weight_BHW = torch.from_numpy(1 + (OBJECT_WEIGHT - 1) * (rendered.object_id[index] >= 0)).float()
    return weight_BHW / weight_BHW.mean()


def _depth_loss(guess_BCHW: torch.Tensor, rendered: Rendered, index: np.ndarray) -> torch.Tensor:
    true_BHW = torch.from_numpy(relative_depth(rendered.depth[index]))
    error = F.smooth_l1_loss(guess_BCHW[:, 0], true_BHW, reduction="none", beta=0.1)
    return (error * object_weight(rendered, index)).mean()


def _depth_figures(guess_BCHW: torch.Tensor, rendered: Rendered) -> dict:
    true_BHW, on = torch.from_numpy(relative_depth(rendered.depth)), torch.from_numpy(rendered.object_id >= 0)
    pair = torch.stack([guess_BCHW[:, 0][on], true_BHW[on]]).double()
    error = (guess_BCHW[:, 0] - true_BHW).abs()
    return {
        "object_correlation": round(float(torch.corrcoef(pair)[0, 1]), 4),
        "object_mean_error": round(float(error[on].mean()), 4),
        "mean_error": round(float(error.mean()), 4),
    }


def _normals_loss(guess_BCHW: torch.Tensor, rendered: Rendered, index: np.ndarray) -> torch.Tensor:
    true_BCHW = torch.from_numpy(rendered.normals[index]).permute(0, 3, 1, 2)
    error_BHW = (guess_BCHW - true_BCHW).square().sum(dim=1)
    return (error_BHW * object_weight(rendered, index)).mean()


def _normals_figures(guess_BCHW: torch.Tensor, rendered: Rendered) -> dict:
    true_BHWC = torch.from_numpy(rendered.normals)
    cosine = (F.normalize(guess_BCHW.permute(0, 2, 3, 1), dim=-1) * true_BHWC).sum(dim=-1).clamp(-1, 1)
    degrees = torch.rad2deg(torch.acos(cosine))
    on = torch.from_numpy(rendered.object_id >= 0)
    solid = true_BHWC.square().sum(dim=-1) > 0.5
    return {
        "object_degrees": round(float(degrees[on].mean()), 2),
        "object_and_ground_degrees": round(float(degrees[solid].mean()), 2),
    }


def _edges_loss(guess_BCHW: torch.Tensor, rendered: Rendered, index: np.ndarray) -> torch.Tensor:
    """Cross-entropy whose two classes weigh the same in all; the pixels beside an edge count a tenth."""
    true_BHW = torch.from_numpy(rendered.edges[index]).float()
    beside = (_widen(true_BHW) > 0) & (true_BHW == 0)
    weight = torch.where(true_BHW > 0, EDGE_POSITIVE, torch.where(beside, 0.1, 1.0))
    error = F.binary_cross_entropy_with_logits(guess_BCHW[:, 0], true_BHW, reduction="none")
    return (error * weight).sum() / weight.sum()


EDGE_POSITIVE = 4.0


def _widen(map_BHW: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(map_BHW[:, None], 2 * EDGE_SLACK + 1, stride=1, padding=EDGE_SLACK)[:, 0]


def _edges_figures(guess_BCHW: torch.Tensor, rendered: Rendered) -> dict:
    """F1 at logit 0, with EDGE_SLACK pixels of tolerance and without."""
    predicted, target = (guess_BCHW[:, 0] > 0).float(), torch.from_numpy(rendered.edges).float()
    precision, recall = (
        (predicted * _widen(target)).sum() / predicted.sum(),
        (target * _widen(predicted)).sum() / target.sum(),
    )
    both = (predicted * target).sum()
    return {
        "f1": round(float(2 * precision * recall / (precision + recall)), 4),
        "precision": round(float(precision), 4),
        "recall": round(float(recall), 4),
        "f1_exact": round(float(2 * both / (predicted.sum() + target.sum())), 4),
    }


TARGETS = {
    "depth": Target(channels=1, steps=1_800, seed=21, loss=_depth_loss, measure=_depth_figures),
    "normals": Target(channels=3, steps=1_100, seed=22, loss=_normals_loss, measure=_normals_figures),
    "edges": Target(channels=1, steps=700, seed=23, loss=_edges_loss, measure=_edges_figures),
}
