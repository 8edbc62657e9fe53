"""The student: a stock CLIP, trained up to the layer that the LVLM reads and whole again when it is written.

Where the tower's base is another encoder of transformers it is that one, and else a tower without experts.

Hidden state L of a CLIP depends on its first layers only, so what learns is a CLIP cut there: nothing above is run or
trained, and the layers above, which no LVLM of ours reads, go into the written model as they were.
"""

import copy
from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedModel

from ...config import UserError
from ...config.model import LoraConfig
from ...config.sources import WeightSource
from ...registry import require
from ...tower.backbone import read_as
from ...tower.clip import load_clip, read_architecture, read_normalisation
from ...tower.configuration import ToVEVisionConfig
from ...tower.modeling import ToVEVisionModel
from ...weights.sources import fetch
from .backbone import linear_layers, stock_backbone, trainable_backbone
from .bare_tower import base_alone, base_tokens, trainable_base

# Without these sizes the tokens or the pixels would be others.
_SAME = ("hidden_size", "image_size", "patch_size", "num_channels")


def whole_student(tower: ToVEVisionModel, source: str | None) -> PreTrainedModel:
    """In float32 the tower's own base, as a stock model or as a tower without experts, or another CLIP of its CLIP's
    sizes.

    Args:
        tower: Teacher.
        source: Folder or hub id of another CLIP.

    Raises:
        UserError: Another CLIP is named, and its tokens or pixels are not of the tower's sizes, or the base is no CLIP.
    """
    fields = tower.config.clip_config
    if fields is None:
        if source is not None:
            raise UserError("`model.student` names another CLIP, and the tower's base is none; leave it out")
        stock = stock_backbone(tower)
        return base_alone(tower) if stock is None else stock
    if source is None:
        clip = CLIPVisionModel(CLIPVisionConfig(**fields))
        clip.load_state_dict(tower.clip.state_dict())
        return clip.float()
    weight_source = WeightSource(pretrained=source)
    weights, folder = fetch(weight_source), fetch(weight_source, weights=False)
    config = CLIPVisionConfig(**read_architecture(folder))
    for key in _SAME:
        actual, required = getattr(config, key), fields[key]
        if actual != required:
            raise UserError(
                f"`model.student`: the CLIP in `{source}` has `{key}` {actual}, the tower's tokens need {required}; "
                "leave `model.student` out to start from the tower's own CLIP"
            )
    expected = (list(tower.config.image_mean), list(tower.config.image_std))
    if (normalisation := read_normalisation(folder)) not in (None, expected):
        raise UserError(f"`model.student`: `{source}` normalises images by {normalisation}, the tower by {expected}")
    if not -config.num_hidden_layers - 1 <= tower.config.select_layer <= config.num_hidden_layers:
        raise UserError(
            f"`model.student`: the CLIP in `{source}` has {config.num_hidden_layers} layers, the tower reads hidden "
            f"state {tower.config.select_layer}"
        )
    clip = CLIPVisionModel(config)
    load_clip(clip, weights)
    return clip.float()


def trained_part(whole: PreTrainedModel, tower: ToVEVisionModel) -> PreTrainedModel:
    """A copy of a student as it is trained.

    Args:
        whole: From `whole_student`.
        tower: Teacher.
    """
    if isinstance(whole, CLIPVisionModel) and tower.config.base is None:
        return cut(whole, tower.config.select_layer)
    if isinstance(whole, ToVEVisionModel):
        return trainable_base(whole)
    return trainable_backbone(whole, tower)


def student_tokens(student: nn.Module, pixels_B3HW: torch.Tensor, tower: ToVEVisionModel) -> torch.Tensor:
    """Patch tokens, (B, N, D).

    Args:
        student: From `trained_part`, inside peft or not.
        pixels_B3HW: As the tower's base takes them.
        tower: Teacher.
    """
    if isinstance(student.config, ToVEVisionConfig):
        return base_tokens(student, pixels_B3HW)
    if tower.config.base is not None:
        return read_as(student, tower.clip, pixels_B3HW)
    tokens_BND: torch.Tensor = student(pixel_values=pixels_B3HW).last_hidden_state[:, 1:]
    return tokens_BND


def cut(clip: CLIPVisionModel, select_layer: int) -> CLIPVisionModel:
    """A copy that ends where hidden state `select_layer` is: its `last_hidden_state` is that state.

    Args:
        clip: A CLIPVisionModel.
        select_layer: Index into its hidden states.
    """
    config = copy.deepcopy(clip.config)
    config.num_hidden_layers = num_layers(clip.config, select_layer)
    with torch.device("meta"):
        student = type(clip)(config)
    state = {name: clip.state_dict()[name].clone() for name in student.state_dict()}
    student.load_state_dict(state, assign=True)
    for name, buffer in clip.named_buffers():  # not in the state: position ids
        owner, _, leaf = name.rpartition(".")
        student.get_submodule(owner).register_buffer(leaf, buffer.clone(), persistent=False)
    student.requires_grad_(True)
    student.post_layernorm.requires_grad_(False)  # of the pooled token, which nobody reads here
    return student


def num_layers(config: Any, select_layer: int) -> int:
    """Layers that hidden state `select_layer` of a CLIP depends on."""
    return select_layer if select_layer >= 0 else config.num_hidden_layers + 1 + select_layer


def add_lora(student: PreTrainedModel, options: LoraConfig) -> nn.Module:
    """peft's model around a student, LoRA on the linear layers of its encoder, everything else frozen.

    Args:
        student: From `trained_part`.
        options: The `lora` block.

    Raises:
        UserError: It has no linear layer that could learn.
    """
    peft = require("peft", extra="train")
    of_clip = r"encoder\..*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"
    target = of_clip if isinstance(student, CLIPVisionModel) else linear_layers(student)
    if not target:
        raise UserError(
            "`lora.lora_enable` is true, and the tower's base has no linear layers in its list of layers; leave it out "
            "to train the base whole"
        )
    for parameter in student.parameters():
        parameter.requires_grad_(False)
    config = peft.LoraConfig(
        r=options.lora_r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=target,
    )
    return peft.get_peft_model(student, config, autocast_adapter_dtype=False)
