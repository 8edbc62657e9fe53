"""Teacher and student as one module that gives a loss for a batch of images.

B images, N tokens, D width, H W pixels.

See docs/design.md, "Merge".
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...config import UserError
from ...config.merge import MergeConfig
from ...tower.clip import FrozenCLIP
from ...tower.modeling import ToVEVisionModel
from .attention import ClassAttention
from .losses import squared_distance, token_loss, weighted_mean
from .student import num_layers, student_tokens


@dataclass
class DistillationOutput:
    """Of one batch."""

    loss: torch.Tensor
    figures: dict[str, torch.Tensor]
    """Whatever the loss is: `gap`, the share of the squared distance from t_clip to t_fuse that is left (1 for CLIP
    itself), and `cosine`, the mean cosine to t_fuse."""

    def __getitem__(self, index: int) -> torch.Tensor:
        """Trainer takes outputs for tuples in places."""
        return (self.loss,)[index]


class Distiller(nn.Module):
    """The tower, frozen and without noise or dropout, and the student that learns what it gives.

    Args:
        teacher: The trained tower.
        student: From `student.trained_part`, inside peft or not.
        options: The `merge` block.
        horizontal_flip: Mirror images at random, half of them, while training.
    """

    mean_D: torch.Tensor
    std_D: torch.Tensor

    def __init__(
        self,
        teacher: ToVEVisionModel,
        student: nn.Module,
        options: MergeConfig,
        horizontal_flip: bool = False,
    ):
        super().__init__()
        self.teacher, self.student, self.options = teacher, student, options
        self.horizontal_flip = horizontal_flip
        self.config = student.config  # DeepSpeed reads the width off it
        teacher.requires_grad_(False)
        width = teacher.config.hidden_size
        self.register_buffer("mean_D", torch.zeros(width))
        self.register_buffer("std_D", torch.ones(width))
        self.attention = None
        if options.token_weight == "cls_attention":
            if not isinstance(teacher.clip, FrozenCLIP):
                raise UserError("`merge.token_weight` asks for a CLIP's class token; the tower's base is no CLIP")
            last = num_layers(teacher.clip.config, teacher.config.select_layer) - 1
            layer: Any = teacher.clip.encoder.layers[max(last, 0)]  # a CLIPEncoderLayer
            self.attention = ClassAttention(layer)

    def train(self, mode: bool = True) -> "Distiller":
        """As `nn.Module.train`, but the teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """Of the student; the teacher keeps nothing for a backward pass."""
        student: Any = self.student  # transformers' model, or peft's around it
        student.activation_checkpointing_enable(**kwargs)

    @torch.no_grad()
    def target(self, pixels_B3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(t_clip, t_fuse), each (B, N, D), from one run of the teacher."""
        return self.teacher(pixels_B3HW).hidden_states

    def tokens(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """What the student gives, (B, N, D)."""
        return student_tokens(self.student, self.teacher.clip_pixels(pixels_B3HW), self.teacher)

    @torch.no_grad()
    def measure_target(self, batches: list[torch.Tensor]) -> None:
        """Take mean and standard deviation of t_fuse, for each channel over all tokens of these images.

        Args:
            batches: (B, 3, H, W) each.
        """
        count = 0
        total_D = squares_D = self.mean_D.new_zeros((), dtype=torch.float64)
        for pixels_B3HW in batches:
            t_MD = self.target(pixels_B3HW)[1].flatten(0, 1).double()
            count += len(t_MD)
            total_D, squares_D = total_D + t_MD.sum(dim=0), squares_D + t_MD.square().sum(dim=0)
        mean_D = total_D / count
        self.mean_D.copy_(mean_D)
        self.std_D.copy_((squares_D / count - mean_D.square()).clamp_min(0).sqrt().clamp_min(1e-6))

    @torch.no_grad()
    def teacher_targets(self, pixels_B3HW: torch.Tensor) -> dict[str, torch.Tensor]:
        """All that is learned from the teacher: `t_fuse` (B, N, D), `start` (B,), the squared distance from t_clip to
        it, and `weight` (B, N) where tokens are weighed.

        Args:
            pixels_B3HW: The images.
        """
        t_clip_BND, t_fuse_BND = self.target(pixels_B3HW)
        targets = {"t_fuse": t_fuse_BND, "start": squared_distance(t_clip_BND, t_fuse_BND)}
        if self.attention is not None and self.attention.weight_BN is not None:
            targets["weight"] = self.attention.weight_BN
        return targets

    def forward(self, pixel_values: torch.Tensor) -> DistillationOutput:
        """Loss and figures of a batch.

        Args:
            pixel_values: (B, 3, H, W), as the tower's image processor gives them.
        """
        if self.training and self.horizontal_flip:
            flip_B = torch.rand(len(pixel_values)) < 0.5
            flip_B = flip_B.to(pixel_values.device)[:, None, None, None]
            pixel_values = torch.where(flip_B, pixel_values.flip(-1), pixel_values)
        targets = self.teacher_targets(pixel_values)
        t_fuse_BND = targets["t_fuse"]
        s_BND = self.tokens(pixel_values)
        mean_D, std_D = self.mean_D.float(), self.std_D.float()
        student_BND, target_BND = (s_BND.float() - mean_D) / std_D, (t_fuse_BND.float() - mean_D) / std_D
        loss_BN = token_loss(student_BND, target_BND, self.options.loss)
        with torch.no_grad():
            cosine = torch.cosine_similarity(s_BND.float(), t_fuse_BND.float(), dim=-1).mean()
            gap = squared_distance(s_BND, t_fuse_BND).mean() / targets["start"].mean()
        return DistillationOutput(
            loss=weighted_mean(loss_BN, targets.get("weight")), figures={"gap": gap, "cosine": cosine}
        )
