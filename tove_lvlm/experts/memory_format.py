"""Which experts are convolutional, and the memory format of their weights.

A convolution on a GPU in half precision reads its image with the channels last; where weights and image lie so already,
nothing is turned round before and after each layer. Values and names stay what they are.

See docs/design.md, "Speed of the experts".
"""

import torch
from torch import nn

from ..errors import UserError
from ..sharding import is_partitioned
from .base import Expert

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
SHARE = 0.1
"""Of an expert's layers that must be convolutions (our choice). Over the catalogue it is 0.04 at most for what is a
ViT (SAM's neck), 0.17 at least where a map is drawn by convolutions behind a ViT (DPT-Large), 0.33 for ConvNeXt, whose
convolutions have one hundredth of the FLOPs and between which the channels lie last anyway, and 1 for a CNN."""


def convolution_share(network: nn.Module) -> float:
    """Share of convolutions among a network's convolutions and linear layers, by number; 0 without any.

    A convolution whose stride is its kernel reads patches, each place once: it is a linear layer, as in a ViT.

    Args:
        network: On any device, the meta device too.
    """
    layers = [module for module in network.modules() if isinstance(module, (nn.Linear, *_CONVOLUTIONS))]
    convolutions = [module for module in layers if isinstance(module, _CONVOLUTIONS) and not _reads_patches(module)]
    return len(convolutions) / max(1, len(layers))


def _reads_patches(convolution: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    return convolution.kernel_size == convolution.stride and max(convolution.kernel_size) > 1


def is_convolutional(expert: Expert) -> bool:
    """Whether its weights and pixels are laid out otherwise where that is asked for."""
    return convolution_share(expert) >= SHARE


@torch.inference_mode(False)  # a later caller may load weights, or want gradients
@torch.no_grad()
def set_channels_last(expert: Expert, on: bool) -> None:
    """Lay out the weights of an expert's convolutions and remember it; one that is not convolutional stays as it is.

    Args:
        expert: Its weights whole on this rank.
        on: Channels last, or contiguous as they were made.

    Raises:
        UserError: ZeRO-3 holds the weights in pieces, which have no memory format.
    """
    if on == expert.channels_last_asked:
        return
    wanted = on and is_convolutional(expert)
    convolutions = [module for module in expert.modules() if isinstance(module, _CONVOLUTIONS)]
    if wanted and any(is_partitioned(p) for module in convolutions for p in module.parameters(recurse=False)):
        raise UserError(
            f"expert `{expert.spec.name}`: ZeRO-3 holds its weights in pieces, flat, so that they cannot lie with the "
            "channels last; leave `channels_last` off, or use ZeRO-2"
        )
    if wanted != expert.channels_last:
        memory_format = torch.channels_last if wanted else torch.contiguous_format
        for module in convolutions:
            module.weight.data = module.weight.data.contiguous(memory_format=memory_format)
    expert.channels_last, expert.channels_last_asked = wanted, on
