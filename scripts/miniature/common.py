"""What the stages of `scripts/build_miniature.py` share: the pool of pictures, positions, the training loop, saving.

Shapes: B images, N tokens, D width, H W pixels or grid.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from tove_lvlm.world.render import Rendered, render
from tove_lvlm.world.scene import IMAGE_SIZE, Scenes, sample, split_seeds

Report = Callable[[str, int, int, str], None]
"""report(stage, steps done, steps in all, a word on the state)."""

PATCH = 8
WIDTH = 96
DEPTH = 4
HEADS = 3
SIDE = IMAGE_SIZE // PATCH
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's own normalisation, for every encoder."""

POOL_TRAIN = 24_000
POOL_HELDOUT = 1_024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool:
    """Rendered scenes to train on (`train`) and to measure on (`heldout`)."""

    train: Rendered
    heldout: Rendered
    train_scenes: Scenes
    heldout_scenes: Scenes


def build_pool(num_train: int = POOL_TRAIN, num_heldout: int = POOL_HELDOUT) -> Pool:
    """Render the pool: about 20 seconds per 24,000 scenes on one core."""
    train, heldout = sample(split_seeds("train", num_train)), sample(split_seeds("heldout", num_heldout))
    return Pool(train=render(train), heldout=render(heldout), train_scenes=train, heldout_scenes=heldout)


def normalised(rgb: np.ndarray) -> torch.Tensor:
    """uint8 (B, H, W, 3) to the encoders' float input (B, 3, H, W)."""
    pixels = torch.from_numpy(np.ascontiguousarray(rgb)).permute(0, 3, 1, 2).float().div_(255)
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)).div_(torch.tensor(STD).view(3, 1, 1))


def save_image_processor(folder: Path) -> None:
    """Write transformers' image processor of pictures of the world's size."""
    from transformers import CLIPImageProcessor

    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIZE}, crop_size=size, image_mean=list(MEAN), image_std=list(STD)
    ).save_pretrained(folder)


def sincos_positions(width: int, side: int) -> torch.Tensor:
    """Fixed 2-D sine-cosine positions, (side * side, width): half the channels for the row, half for the column."""
    frequency = 1.0 / (100.0 ** (torch.arange(width // 4) / (width // 4)))
    angle = torch.arange(side)[:, None] * frequency
    code_LD = torch.cat([angle.sin(), angle.cos()], dim=1)
    row = code_LD[:, None].expand(side, side, -1)
    column = code_LD[None].expand(side, side, -1)
    return torch.cat([row, column], dim=-1).reshape(side * side, width)


def fit(
    stage: str,
    modules: Iterable[torch.nn.Module],
    loss_of: Callable[[np.ndarray], torch.Tensor],
    *,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
    num_samples: int,
    report: Report,
) -> dict:
    """AdamW with warm-up and cosine decay; the order of samples is a function of the seed.

    Args:
        stage: name for the report.
        modules: what is trained.
        loss_of: sample indices (B,) to a scalar loss.
        steps: optimizer steps.
        batch: samples per step.
        lr: peak learning rate.
        seed: of the sample order.
        num_samples: how many samples there are.
        report: called every 10 steps.

    Returns:
        What the training record holds of it: steps, batch, learning rate, seconds, first and last loss.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.05)
    warmup = max(1, round(0.06 * steps))

    def factor(step: int) -> float:
        return min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * max(0, step - warmup) / (steps - warmup))))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    rng, start, losses = np.random.default_rng(seed), time.monotonic(), []
    order = np.zeros(0, np.int64)
    for step in range(steps):
        if len(order) < batch:
            order = rng.permutation(num_samples)
        index, order = order[:batch], order[batch:]
        loss = loss_of(index)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % 10 == 9 or step + 1 == steps:
            report(stage, step + 1, steps, f"loss {np.mean(losses[-30:]):.4f}")
    return {
        "seed": seed,
        "steps": steps,
        "batch_size": batch,
        "learning_rate": lr,
        "train_seconds": round(time.monotonic() - start, 1),
        "loss_first": round(float(np.mean(losses[:10])), 4),
        "loss_last": round(float(np.mean(losses[-30:])), 4),
    }


def half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict as it is shipped: floating tensors in float16."""
    return {
        key: (value.detach().half() if value.is_floating_point() else value.detach()).contiguous()
        for key, value in state.items()
    }


def write_json(path: Path, content: dict) -> None:
    """Write JSON as the shipped files have it: two spaces, a final newline."""
    path.write_text(json.dumps(content, indent=2) + "\n")


def hardware() -> dict:
    """Processor and versions, without names of machines or paths."""
    import timm
    import transformers

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "processor": model or platform.machine(),
        "threads_per_stage": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "timm": timm.__version__,
        "numpy": np.__version__,
    }
