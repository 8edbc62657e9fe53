"""The student where the tower's base is an encoder of transformers that is no CLIP: a stock model of the same class.

It is trained whole; what the loss does not reach (layers behind the one that is read, a pooler, a last norm) is frozen.

Shapes: B images, N tokens, D width, S side of the token grid.
"""

import copy
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from ...tower.backbone import backbone_of, read_as, stop_as
from ...tower.modeling import ToVEVisionModel


def stock_backbone(tower: ToVEVisionModel) -> PreTrainedModel | None:
    """The tower's base in float32, as transformers itself would have it; None where it is of a family that gives no
    class of transformers.
    """
    network = backbone_of(tower.clip)
    if network is None:
        return None
    backbone = copy.deepcopy(network)
    for module in backbone.modules():
        module.__dict__.pop("forward", None)  # layers that only pass on
    return cast(PreTrainedModel, cast(nn.Module, backbone).float())


def trainable_backbone(backbone: PreTrainedModel, tower: ToVEVisionModel) -> PreTrainedModel:
    """A copy that learns: layers behind the one that is read are not run, and what has no gradient is frozen.

    Args:
        backbone: From `stock_backbone`.
        tower: Whose base it is.
    """
    student = copy.deepcopy(backbone)
    stop_as(student, tower.clip)
    student.requires_grad_(True)
    size = tower.config.base_size
    with torch.enable_grad():
        read_as(student, tower.clip, torch.zeros(1, 3, size, size)).square().sum().backward()
    for parameter in student.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    return student


def linear_layers(student: PreTrainedModel) -> list[str]:
    """Names of the linear layers that learn and lie in a list of layers: where LoRA goes."""
    # timm's layers lie in an nn.Sequential.
    kinds = (nn.ModuleList, nn.Sequential) if isinstance(student, ToVEVisionModel) else nn.ModuleList
    lists = tuple(f"{name}." for name, module in student.named_modules() if isinstance(module, kinds))
    return [
        name
        for name, module in student.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(lists) and module.weight.requires_grad
    ]
