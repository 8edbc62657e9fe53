"""Ordinary random values for a network that would otherwise be all zeros or all alike."""

import torch
from torch import nn


@torch.no_grad()
def lively(network: nn.Module, scale: float = 0.2, seed: int = 1) -> nn.Module:
    """Every parameter and running statistic gets a value that shows; back in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if tensor.is_floating_point():
            value = torch.randn(tensor.shape, generator=generator) * scale
            tensor.copy_(value.abs() + 0.5 if name.endswith("running_var") else value)
    return network.eval()
