"""A tower without experts: what a student is where its base is of no class of transformers, and what a base model has
in its encoder's place.

Shapes: B images, N tokens, D width, S side of the token grid, H W pixels.
"""

import copy
import dataclasses
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from ...config import UserError
from ...config.tower import FusionConfig
from ...tower.backbone import backbone_of
from ...tower.configuration import ToVEVisionConfig
from ...tower.modeling import ToVEVisionModel


def bare_tower(like: ToVEVisionConfig, clip_config: dict[str, Any] | None = None) -> ToVEVisionModel:
    """One with the pixels and the base of another, whose weights are not loaded yet; in float32.

    Args:
        like: Of the tower that it stands for.
        clip_config: Of another CLIP than that tower's.
    """
    config = ToVEVisionConfig(
        clip_config=(clip_config or like.clip_config) if like.base is None else None,
        base=like.base,
        select_layer=like.select_layer,
        image_mean=like.image_mean,
        image_std=like.image_std,
        input_size=like.input_size,
        experts=[],
        fusion=dataclasses.asdict(FusionConfig()),
    )
    return ToVEVisionModel(config).eval()


def around(student: PreTrainedModel, like: ToVEVisionConfig) -> ToVEVisionModel:
    """A bare tower whose tokens are a student's; the student itself where it is one.

    Args:
        student: A whole CLIPVisionModel, or of the class of the tower's base; its weights are copied.
        like: Of the tower that it stands for.
    """
    if isinstance(student, ToVEVisionModel):
        return student
    tower = bare_tower(like, student.config.to_dict())
    encoder: nn.Module = backbone_of(tower.clip) or tower.clip
    encoder.load_state_dict(student.state_dict())
    return tower


def base_alone(tower: ToVEVisionModel) -> ToVEVisionModel:
    """A copy of a tower's base as a bare tower, in float32.

    Args:
        tower: Any.
    """
    student = bare_tower(tower.config)
    student.clip.load_state_dict(tower.clip.state_dict())
    return student


def trainable_base(whole: ToVEVisionModel) -> ToVEVisionModel:
    """A copy whose base learns, but for what its tokens do not depend on; running statistics stay as they are.

    Args:
        whole: From `base_alone`.

    Raises:
        UserError: It has no weights that could learn.
    """
    student = copy.deepcopy(whole)
    student.tove_fusion.requires_grad_(False)
    student.clip.requires_grad_(True)
    size = student.config.base_size
    with torch.enable_grad():
        tokens_1ND = base_tokens(student, torch.zeros(1, 3, size, size))
    if not tokens_1ND.requires_grad:
        raise UserError(
            f"the tower's base, of family `{(whole.config.base or {}).get('family')}`, is run by another library and "
            "cannot learn, so that nothing can be merged into it"
        )
    tokens_1ND.square().sum().backward()
    for parameter in student.clip.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    return student


def base_tokens(student: nn.Module, pixels_B3HW: torch.Tensor) -> torch.Tensor:
    """Patch tokens with their gradient, (B, N, D); the tower's own `forward` holds none for its base.

    Args:
        student: From `trainable_base`, inside peft or not.
        pixels_B3HW: As the base takes them.
    """
    base = cast(nn.Module, student.clip)  # peft passes its model's attributes on
    dtype = next((parameter.dtype for parameter in base.parameters()), pixels_B3HW.dtype)
    grid_BDSS: torch.Tensor = base(pixels_B3HW.to(dtype))
    return grid_BDSS.flatten(2).transpose(1, 2)
