"""The network of transformers behind a base that is no CLIP, for who trains a copy of it.

Shapes: B images, N tokens, D width, S side of the token grid.
"""

from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from ..experts.families.transformers.model import TransformersBackbone, read_features, stop_at


def backbone_of(base: nn.Module) -> PreTrainedModel | None:
    """The network, with its weights; None where the base is of another family.

    Args:
        base: A tower's.
    """
    return base.backbone if isinstance(base, TransformersBackbone) else None


def stop_as(network: PreTrainedModel, base: nn.Module) -> None:
    """Let the layers that are not read pass on what they get, as in the base.

    Args:
        network: Of the base's class.
        base: A tower's, with a `backbone_of`.
    """
    stop_at(network, cast(TransformersBackbone, base).fields["layer"])


def read_as(network: nn.Module, base: nn.Module, pixels_B3HW: torch.Tensor) -> torch.Tensor:
    """A network's patch tokens, (B, N, D), read as the tower reads its base's.

    Args:
        network: Of the base's class, inside peft or not.
        base: A tower's, with a `backbone_of`.
        pixels_B3HW: As the base takes them.
    """
    encoder = cast(TransformersBackbone, base)
    model = cast(PreTrainedModel, network)
    grid_BDSS = read_features(model, pixels_B3HW, encoder.fields["layer"], encoder.options)
    return grid_BDSS.flatten(2).transpose(1, 2)
