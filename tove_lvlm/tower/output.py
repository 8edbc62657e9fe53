"""What passes between the parts of a tower, and what it gives.

Shapes: B images, N tokens, D width, K experts.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers.utils import ModelOutput


@dataclass
class ToVEOutput(ModelOutput):
    """What the tower gives."""

    last_hidden_state: torch.Tensor | None = None
    """t_fuse, (B, N, D)."""
    pooler_output: Any = None
    """Left to the host: LLaVA puts the projected features here."""
    hidden_states: tuple[torch.Tensor, ...] | None = None
    """(t_clip, t_fuse): hosts that select a layer must select the last one."""
    attentions: Any = None
    """Never given; `VisionEncoderDecoderModel` asks every encoder's output for it."""
    gate_probs: torch.Tensor | None = None
    """(B, N, K) float32, columns as `expert_names`; exactly 0 for detached experts."""
    balance_loss: torch.Tensor | None = None
    """Scalar float32, without its weight. None where gradients are off: beam search repeats what an encoder gives along
    its batch axis, which a scalar does not have."""


class FrozenFeatures(NamedTuple):
    """What CLIP and the attached experts say of a batch of images: the arguments of `tove_fusion`."""

    t_clip_BND: torch.Tensor
    """CLIP's patch tokens."""
    grids: dict[str, torch.Tensor]
    """Name -> (B, C, h, w), in the dtype of the tokens."""
    weight_B: torch.Tensor
    """False for an image that is exactly zero, a host's dummy."""


class FusionOutput(NamedTuple):
    """What the fusion gives."""

    t_fuse_BND: torch.Tensor
    """Enriched tokens, in the dtype of `t_clip`."""
    gate_BNK: torch.Tensor
    """Gate probabilities, float32; exactly 0 for detached experts."""
    balance: torch.Tensor
    """Balance loss, scalar float32."""
