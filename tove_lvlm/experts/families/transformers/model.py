"""Embedding expert: a vision encoder of transformers (CLIP, DINOv2, SigLIP, ViT, SAM, ...).

Shapes: B images, N tokens, D width, C channels of the grid, h w its sides.

See docs/design.md, "Experts".
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from ....config import ConfigError
from ...base import EXPERTS, Expert
from ...transformers_files import renamed
from ...unread_layers import pass_on, unread_layers
from . import qwen
from .config import TransformersConfig


@EXPERTS.register("transformers")
class TransformersBackbone(Expert):
    """Embedding: a vision encoder of transformers; class and register tokens are dropped."""

    library = TransformersConfig.library.name

    def __init__(self, fields: Mapping[str, Any]):
        super().__init__(fields)
        self.backbone = _create(fields)
        config = self.backbone.config
        # The size that a network was trained at need not be a multiple of its patch (SigLIP's 384 is none of 14).
        if fields["image_size"] != fields["architecture"].get("image_size"):
            is_qwen = qwen.is_qwen(config.model_type)
            self.patch_size = qwen.patch_size(config) if is_qwen else getattr(config, "patch_size", None)
        self.options = _size_options(self.backbone, fields["image_size"])
        stop_at(self.backbone, fields["layer"])
        self.remember_meta_device()

    @classmethod
    def architecture_of(cls, fields: Mapping[str, Any]) -> str:
        return str(fields["architecture"].get("model_type"))

    def encode(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        return read_features(self.backbone, pixels_B3HW, self.fields["layer"], self.options)

    def use_attention(self, implementation: str | None) -> None:
        """As `Expert.use_attention`, by transformers' own switch."""
        if implementation is not None:
            self.backbone.set_attn_implementation(implementation)

    def adapt_weights(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keys bare or under the encoder's name in a larger model, whose other parts are left out.

        A tensor under that name which the encoder does not know is not left out: it is reported. transformers itself
        renames what earlier versions of it have saved.
        """
        state = self.backbone.state_dict()
        unused = ("position_ids", "pooler.dense.weight", "pooler.dense.bias")
        tensors = {key: tensor for key, tensor in tensors.items() if not key.endswith(unused)}
        first = next(iter(state))
        prefixes = {key.removesuffix(first) for key in tensors if key.endswith(first)}
        prefix = (
            ""
            if "" in prefixes or not prefixes
            else min(prefixes, key=lambda candidate: ("text" in candidate, candidate))
        )
        whole = tensors
        tensors = {key.removeprefix(prefix): tensor for key, tensor in whole.items() if key.startswith(prefix)}
        if tensors.keys() != state.keys():
            names = renamed(self.backbone, tensors) or renamed(self.backbone, whole)  # RADIO's begin with its prefix
            tensors = names or tensors
        if self.backbone.config.model_type == "sam_vision_model":
            tensors = {
                key: _resampled(tensor, state[key]) if key in state else tensor for key, tensor in tensors.items()
            }
        return {f"backbone.{key}": tensor for key, tensor in tensors.items()}


def _create(fields: Mapping[str, Any]) -> PreTrainedModel:
    architecture = dict(fields["architecture"])
    kind = architecture.pop("model_type", None)
    if qwen.is_qwen(kind):
        return qwen.create(kind, architecture)
    try:
        config = AutoConfig.for_model(kind, **architecture)
    except ValueError as error:
        raise ConfigError(
            f"expert `{fields['name']}`: transformers has no model type `{kind}`; give the `model_type` of a vision "
            "encoder, such as clip_vision_model, dinov2, siglip_vision_model or sam_vision_model"
        ) from error
    if kind == "sam_vision_model":  # its positions have the size of its image; those of a file are resampled
        config.image_size = fields["image_size"]
    backbone: Any = AutoModel.from_config(config)
    if any(True for _ in getattr(backbone, "pooler", nn.Identity()).parameters()):
        backbone.pooler = None  # of the class token; published files often lack it
    model: PreTrainedModel = backbone
    return model


def stop_at(backbone: PreTrainedModel, layer: int | None) -> None:
    """Let the layers behind hidden state `layer` pass on what they get, where the encoder has one list of layers."""
    num_layers = getattr(backbone.config, "num_hidden_layers", None)
    lists = [module for module in backbone.modules() if isinstance(module, nn.ModuleList) and len(module) == num_layers]
    if layer is None or len(lists) != 1 or not -len(lists[0]) - 1 <= layer <= len(lists[0]):
        return
    for unread in unread_layers(lists[0], layer):
        unread.forward = pass_on  # type: ignore[method-assign]  # of this one layer


def _size_options(backbone: PreTrainedModel, image_size: int) -> dict[str, Any]:
    """What tells an encoder to resample its positions, where the image is not of its own size."""
    takes = "interpolate_pos_encoding" in inspect.signature(backbone.forward).parameters
    native_size = getattr(backbone.config, "image_size", image_size)
    return {"interpolate_pos_encoding": True} if takes and native_size != image_size else {}


def _resampled(tensor: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """SAM's positions for another image: its grid (1, h, w, D) bicubic, its relative ones (L, D) as SAM's own code."""
    if tensor.shape == target.shape or tensor.shape[-1] != target.shape[-1]:
        return tensor
    if tensor.ndim == 4 and target.ndim == 4:
        grid_1Dhw = tensor.float().permute(0, 3, 1, 2)
        grid_1Dhw = F.interpolate(grid_1Dhw, size=tuple(target.shape[1:3]), mode="bicubic", antialias=True)
        return grid_1Dhw.permute(0, 2, 3, 1).to(tensor.dtype)
    if tensor.ndim == 2 and target.ndim == 2:
        return F.interpolate(tensor.float().T[None], size=len(target), mode="linear")[0].T.to(tensor.dtype)
    return tensor


def _patches(pixels_B3HW: torch.Tensor, patch: int) -> dict[str, torch.Tensor]:
    """What SigLIP 2's NaFlex encoder takes: every image as a row of flat patches, with the shape of its grid."""
    num_images, _, height, width = pixels_B3HW.shape
    flat_BNP = F.pixel_unshuffle(pixels_B3HW, patch).unflatten(1, (3, patch * patch)).flatten(3)
    flat_BNP = flat_BNP.permute(0, 3, 2, 1).flatten(2)  # colours vary fastest
    shape = [[height // patch, width // patch]] * num_images
    return {
        "pixel_values": flat_BNP,
        "pixel_attention_mask": None,  # no patch is padding
        "spatial_shapes": torch.tensor(shape, device="cpu"),  # read as numbers, not computed with
    }


def read_features(
    backbone: PreTrainedModel, pixels_B3HW: torch.Tensor, layer: int | None, options: Mapping[str, Any]
) -> torch.Tensor:
    """(B, C, h, w) of the last hidden state, or of hidden state `layer`.

    Args:
        backbone: The encoder, also inside peft.
        pixels_B3HW: As it takes them.
        layer: Index into its hidden states; None takes its own last hidden state.
        options: Of its forward.
    """
    if qwen.is_qwen(backbone.config.model_type):
        return qwen.read_tokens(backbone, pixels_B3HW)
    inputs = {"pixel_values": pixels_B3HW}
    if backbone.config.model_type == "siglip2_vision_model":
        inputs = _patches(pixels_B3HW, backbone.config.patch_size)
    output = backbone(**inputs, **options, output_hidden_states=layer is not None)
    states = output.last_hidden_state if layer is None else output.hidden_states[layer]
    if states.ndim == 4:  # SAM gives its grid itself, its earlier layers' with the channels last
        return states if layer is None else states.permute(0, 3, 1, 2)
    patch = backbone.config.patch_size
    height, width = (side // patch for side in pixels_B3HW.shape[-2:])
    tokens_BND = states[:, states.shape[1] - height * width :]  # what comes first is class and register tokens
    return tokens_BND.transpose(1, 2).unflatten(2, (height, width))
