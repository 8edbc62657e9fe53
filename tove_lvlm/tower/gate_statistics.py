"""What a gate does over the tokens of images: for training's logs, the balance loss, `tove usage` and the benchmarks.

Shapes: B images, N tokens, K experts.

See docs/design.md, "Gate".
"""

import torch


def mass(gate_BNK: torch.Tensor) -> torch.Tensor:
    """Mean probability over the tokens, (B, K); an image's row sums to 1.

    Args:
        gate_BNK: Gate probabilities.
    """
    return gate_BNK.mean(dim=1)


def entropy(gate_BNK: torch.Tensor) -> torch.Tensor:
    """Mean entropy over the tokens in nats, (B,): 0 where one expert has everything, log K where all share alike.

    Args:
        gate_BNK: Gate probabilities, float.
    """
    return -(gate_BNK * gate_BNK.clamp_min(1e-12).log()).sum(dim=-1).mean(dim=1)


def first_counts(gate_BNK: torch.Tensor) -> torch.Tensor:
    """Number of tokens where each expert has the largest probability, (K,); of equal ones the first counts.

    Args:
        gate_BNK: Gate probabilities.
    """
    return torch.bincount(gate_BNK.argmax(-1).flatten(), minlength=gate_BNK.shape[-1])
