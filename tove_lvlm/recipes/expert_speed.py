"""`train.expert_channels_last`, `train.expert_compile` and `train.expert_streams` of every stage: how the frozen parts
of a tower run. What they give is the same but for the order of sums.

See docs/design.md, "Speed of the experts".
"""

import logging
from typing import Any

import torch

from ..config.loop import LoopConfig
from ..errors import UserError
from ..tower.modeling import ToVEVisionModel
from ..train.compiler import compiler_problem

logger = logging.getLogger(__name__)


def use_expert_speed(tower: Any, train: LoopConfig, device: torch.device | None = None) -> None:
    """Set a tower up as the `train` block says.

    Args:
        tower: With its weights. A plain CLIP of transformers has no experts, which is said.
        train: The block.
        device: Where it is going to run; none takes CUDA where there is one.

    Raises:
        UserError: The device has no streams, or nothing can be compiled for it.
    """
    asked = [key for key in ("expert_channels_last", "expert_compile", "expert_streams") if getattr(train, key)]
    if not asked:
        return
    if not isinstance(tower, ToVEVisionModel):
        logger.info("train.%s: not used, a plain CLIP is the vision tower, which has no experts", ", ".join(asked))
        return
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if train.expert_streams and device.type != "cuda":
        raise UserError(f"`train.expert_streams` needs a CUDA device; this run is on `{device.type}`, leave it out")
    problem = compiler_problem(device) if train.expert_compile else None
    if problem is not None:
        raise UserError(f"`train.expert_compile`: torch.compile cannot be used here, {problem}; leave it out")
    tower.experts.channels_last = train.expert_channels_last
    tower.experts.streams = train.expert_streams
    if train.expert_compile:
        tower.compile_experts()
    if train.expert_channels_last:
        names = tower.experts.convolutional_names
        logger.info("train.expert_channels_last: %s", ", ".join(names) or "none of the experts is convolutional")
