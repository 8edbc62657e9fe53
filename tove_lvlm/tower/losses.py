"""The balance loss: no expert takes all tokens, and none gets nothing.

    L = CV^2(m) = var(m) / mean(m)^2,   m_k = mean gate mass of expert k over tokens and images of the global batch

With a dense soft-max only the importance term of Shazeer's loss carries a gradient, so the load term is left out.

Shapes: B images, N tokens, K experts.

See docs/design.md, "Balance loss".
"""

import torch
import torch.distributed as td

from .. import dist
from .gate_statistics import mass

EPSILON = 1e-10


def cv_squared(mass_K: torch.Tensor) -> torch.Tensor:
    """Squared coefficient of variation (population variance), a scalar."""
    mean = mass_K.mean()
    return (mass_K - mean).square().mean() / (mean.square() + EPSILON)


def balance_loss(
    gate_BNK: torch.Tensor, weight_B: torch.Tensor, attached_K: list[bool], collective: bool
) -> torch.Tensor:
    """Squared coefficient of variation of the attached experts' mean gate mass.

    Args:
        gate_BNK: Gate probabilities, float32.
        weight_B: 1 for an image that counts, 0 for the dummy of a text-only batch.
        attached_K: Which experts take part.
        collective: Average over the images of all ranks. The value is then the same on every rank, and the gradient is
            right after the ranks' gradients have been averaged. Every rank must call.

    Returns:
        Scalar, float32; 0 when no image counts or fewer than two experts take part.
    """
    columns = [index for index, attached in enumerate(attached_K) if attached]
    if not columns:
        return gate_BNK.new_zeros(())
    # A list as an index would be sent to the device, and the host would wait for what is queued there.
    means_BK = mass(gate_BNK)
    mass_BK = torch.stack([means_BK[:, column] for column in columns], dim=1)
    sum_K = (mass_BK * weight_B.to(gate_BNK)[:, None]).sum(0)
    num_images = weight_B.to(gate_BNK).sum()
    if collective and td.is_available() and td.is_initialized():
        total = dist.all_reduce_sum(torch.cat([sum_K.detach(), num_images[None]]))
        num_images = total[-1]
        # Value: the global sum. Gradient: the local part times W, because W ranks' gradients are averaged.
        sum_K = total[:-1] + td.get_world_size() * (sum_K - sum_K.detach())
    return cv_squared(sum_K / num_images.clamp(min=1))
