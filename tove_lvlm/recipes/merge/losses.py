"""How far a student's tokens are from the target. Shapes: B images, N tokens, D width."""

import torch
import torch.nn.functional as F


def token_loss(student_BND: torch.Tensor, target_BND: torch.Tensor, kind: str) -> torch.Tensor:
    """Distance of each token, (B, N), in float32.

    Args:
        student_BND: What the student gives.
        target_BND: What it should give.
        kind: `smooth_l1` (mean over channels), `cosine` (one minus the cosine) or `both` (their sum).
    """
    student_BND, target_BND = student_BND.float(), target_BND.float()
    loss_BN = student_BND.new_zeros(student_BND.shape[:2])
    if kind in ("smooth_l1", "both"):
        loss_BN = loss_BN + F.smooth_l1_loss(student_BND, target_BND, reduction="none").mean(dim=-1)
    if kind in ("cosine", "both"):
        loss_BN = loss_BN + 1 - F.cosine_similarity(student_BND, target_BND, dim=-1)
    return loss_BN


def weighted_mean(loss_BN: torch.Tensor, weight_BN: torch.Tensor | None) -> torch.Tensor:
    """Mean over tokens, weighed within each image, then over images.

    Args:
        loss_BN: Of each token.
        weight_BN: At least 0, any scale; none counts every token alike.
    """
    if weight_BN is None:
        return loss_BN.mean()
    weight_BN = weight_BN.float()
    return ((loss_BN * weight_BN).sum(dim=1) / weight_BN.sum(dim=1)).mean()


def squared_distance(a_BND: torch.Tensor, b_BND: torch.Tensor) -> torch.Tensor:
    """Mean squared difference over each image, (B,). From t_clip to t_fuse it is what there is to learn."""
    return (a_BND.float() - b_BND.float()).square().mean(dim=(1, 2))
