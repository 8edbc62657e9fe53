"""Qwen's vision encoders (Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3.5): packed patches in, the merger's tokens out.

They are no `AutoModel`, take flat patches of all images in one row, and join m x m patches to one token, which is what
Qwen's language model reads. Here every image is a square of one size, so that a batch gives a batch of square grids.

Shapes: B images, N patches of an image, P numbers of a patch, p its side, m the merger's side, C width of a token, h w
their grid.

See docs/design.md, "Experts".
"""

import importlib
from typing import Any, cast

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from .config import QWEN


def is_qwen(kind: str | None) -> bool:
    """Whether a model type is one of Qwen's vision encoders."""
    return kind in QWEN


def create(kind: str, architecture: dict[str, Any]) -> PreTrainedModel:
    """The encoder without weights. What only Qwen's own language models read of it (deepstack) is not run.

    Args:
        kind: Model type, for which `is_qwen`.
        architecture: Its config.

    Raises:
        TypeError: A value that the config does not take.
        ValueError: As for TypeError.
    """
    model = kind.removesuffix("_vision")
    module = importlib.import_module(f"transformers.models.{model}.modeling_{model}")
    encoder_class = getattr(module, QWEN[kind])
    config = cast("type[PreTrainedConfig]", encoder_class.config_class)(**architecture)
    encoder = encoder_class._from_config(config)
    encoder.deepstack_visual_indexes = []
    return cast(PreTrainedModel, encoder)


def patch_size(config: PreTrainedConfig) -> int:
    """Side in pixels of what becomes one token."""
    return cast(int, config.patch_size * config.spatial_merge_size)


def read_tokens(encoder: PreTrainedModel, pixels_B3HW: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w): the merger's tokens, which lie row by row.

    Args:
        encoder: From `create`, also inside peft.
        pixels_B3HW: Normalised as Qwen's images; sides are multiples of `patch_size`.
    """
    config = encoder.config
    side, merge, frames = config.patch_size, config.spatial_merge_size, config.temporal_patch_size
    num_images, _, height, width = pixels_B3HW.shape
    rows, columns = height // side, width // side
    patches = _patches(pixels_B3HW, side, merge, frames)
    grid = torch.tensor([[1, rows, columns]] * num_images, device="cpu")  # read as numbers, not computed with
    with torch.device("cpu"):  # also where a network is only counted, on the meta device
        positions = _positions(config, grid, pixels_B3HW.device)
    output = encoder(patches, grid_thw=grid, **positions)
    tokens = output.pooler_output.unflatten(0, (num_images, rows // merge, columns // merge))
    return cast(torch.Tensor, tokens.permute(0, 3, 1, 2))


def _patches(pixels_B3HW: torch.Tensor, side: int, merge: int, frames: int) -> torch.Tensor:
    """(B N, P), as Qwen's image processor cuts them: the m x m of a token in sequence, the image as each frame."""
    patches = pixels_B3HW.unflatten(3, (-1, merge, side)).unflatten(2, (-1, merge, side))  # B 3 h m p w m p
    patches = patches.permute(0, 2, 5, 3, 6, 1, 4, 7)  # B h w m m 3 p p
    patches = patches.unsqueeze(6).expand(*patches.shape[:6], frames, side, side)
    return patches.flatten(5).flatten(0, 4)


def _positions(config: PreTrainedConfig, grid_B3: torch.Tensor, device: torch.device) -> dict[str, torch.Tensor]:
    """What the encoder would work out of the grid by itself, which costs a wait for the device in every layer.

    Where each image ends stays on the CPU unless attention is computed by a kernel that reads it.
    """
    flash = "flash" in str(config._attn_implementation)
    merge = config.spatial_merge_size
    positions = {"position_ids": get_vision_position_ids(grid_B3, merge).to(device)}
    ends = {"cu_seqlens": get_vision_cu_seqlens(grid_B3)}
    if hasattr(config, "window_size"):
        index, window_ends = get_vision_window_index(grid_B3, merge, config.window_size, config.patch_size)
        positions["window_index"], ends["cu_window_seqlens"] = index.to(device), window_ends
    if hasattr(config, "num_position_embeddings"):
        indices, weights = get_vision_interpolation_indices_and_weights(
            grid_B3, int(config.num_position_embeddings**0.5), "bilinear", align_corners=True, spatial_merge_size=merge
        )
        positions |= {"interp_indices": indices.to(device), "interp_weights": weights.to(device)}
    return {**positions, **{key: lengths.to(device) if flash else lengths for key, lengths in ends.items()}}
