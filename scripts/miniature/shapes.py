"""Stage `shapes`: the embedding expert of another kind, a ConvNeXt of timm that names what covers each cell.

It is trained supervised, and used for its features. timm builds ConvNeXt with four stages only; the features come from
the second, whose grid is 8 x 8, and the last two are kept minimal.

Shapes: B images, D width, H W grid.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from tove_lvlm.world.scene import COLORS, IMAGE_SIZE, SHAPES

from .clip import cell_labels, linear_probes
from .common import MEAN, SIDE, STD, Pool, Report, fit, half, normalised, write_json

STEPS, BATCH, RATE, SEED = 1_000, 48, 2e-3, 31
ARCHITECTURE = "convnext_atto"
MODEL_ARGS = {"depths": [1, 3, 1, 1], "dims": [48, 112, 16, 16]}
OUT_INDEX = 1


class Namer(torch.nn.Module):
    """The backbone up to its second stage, and a linear reading of each cell."""

    def __init__(self) -> None:
        super().__init__()
        import timm

        self.backbone = timm.create_model(ARCHITECTURE, num_classes=0, **MODEL_ARGS)
        width = MODEL_ARGS["dims"][OUT_INDEX]
        self.norm = torch.nn.LayerNorm(width)
        self.head = torch.nn.Linear(width, len(SHAPES) + len(COLORS) + 2)

    def features(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """Normalised pixels to (B, D, 8, 8)."""
        x = self.backbone.stem(pixels_B3HW)
        for stage in self.backbone.stages[: OUT_INDEX + 1]:
            x = stage(x)
        return x

    def forward(self, pixels_B3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised pixels to shape logits (B, 5, 64) and colour logits (B, 7, 64); the last class is `nothing`."""
        features_BND = self.features(pixels_B3HW).flatten(2).transpose(1, 2)
        return self.head(self.norm(features_BND)).transpose(1, 2).split([len(SHAPES) + 1, len(COLORS) + 1], dim=1)


def train(pool: Pool, out_dir: Path, report: Report) -> dict:
    """Train the expert, save it to `out_dir`, return the stage's record."""
    torch.manual_seed(SEED)
    model = Namer()
    for stage in model.backbone.stages[OUT_INDEX + 1 :]:
        stage.requires_grad_(False)
    labels = [_labels(pool.train, pool.train_scenes), _labels(pool.heldout, pool.heldout_scenes)]

    def loss_of(index: np.ndarray) -> torch.Tensor:
        guess = model(normalised(pool.train.rgb[index]))
        return sum(F.cross_entropy(g, true[index]) for g, true in zip(guess, labels[0], strict=True))

    size = {"steps": STEPS, "batch": BATCH, "lr": RATE, "seed": SEED, "num_samples": len(pool.train)}
    record = fit("shapes", [model], loss_of, **size, report=report)
    out_dir.mkdir(parents=True, exist_ok=True)
    save_file(half(model.backbone.state_dict()), out_dir / "model.safetensors")
    content = {"architecture": ARCHITECTURE, "model_args": MODEL_ARGS, "out_index": OUT_INDEX}
    write_json(out_dir / "config.json", content | {"image_size": IMAGE_SIZE, "mean": list(MEAN), "std": list(STD)})
    record["parameters"] = sum(p.numel() for p in model.backbone.parameters())
    record["heldout"] = _measure(model.eval(), pool, labels[1])
    return record


def _labels(rendered, scenes) -> tuple[torch.Tensor, torch.Tensor]:
    """Shape and colour of each cell, (S, 64), the class after the last for cells without object."""
    _, shape, color = cell_labels(rendered.object_id, scenes)
    return (
        torch.from_numpy(np.where(shape < 0, len(SHAPES), shape)),
        torch.from_numpy(np.where(color < 0, len(COLORS), color)),
    )


@torch.no_grad()
def _measure(model: Namer, pool: Pool, labels: tuple[torch.Tensor, torch.Tensor]) -> dict:
    rgb = pool.heldout.rgb
    parts = [model(normalised(rgb[i : i + 128])) for i in range(0, len(rgb), 128)]
    figures, on = {}, labels[0] < len(SHAPES)
    for name, which in (("shape", 0), ("color", 1)):
        correct = torch.cat([part[which] for part in parts]).argmax(dim=1) == labels[which]
        figures[f"{name}_on_objects"] = round(float(correct[on].double().mean()), 4)
        figures[f"{name}_everywhere"] = round(float(correct.double().mean()), 4)

    def tokens(rgb: np.ndarray) -> torch.Tensor:
        parts = [model.features(normalised(rgb[i : i + 128])) for i in range(0, len(rgb), 128)]
        return torch.cat(parts).flatten(2).transpose(1, 2).reshape(-1, SIDE * SIDE, MODEL_ARGS["dims"][OUT_INDEX])

    return figures | linear_probes(tokens(pool.train.rgb[:1024]), tokens(rgb), pool)
