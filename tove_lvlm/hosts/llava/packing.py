"""Frozen features as one tensor, and back.

LLaVA carries what its tower gives to its projector as one tensor (B, N, C), which it may concatenate and split along
B. The features are CLIP's tokens and K grids of different shapes (a predicted map has full resolution), so they are
laid end to end for each image, behind a header that says what follows, and cut into N equal rows. Nothing is lost or
rounded: every number in the header is an integer below 256, which bfloat16 and float16 hold exactly. A grid keeps its
order in memory too, because a convolution rounds by it.

Shapes: B images, N tokens, D CLIP width, C packed width, K experts, L numbers of an image, c h w an expert's grid.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from ...tower.output import FrozenFeatures

_MAGIC = (84, 111, 86, 69)
_BASE = 128
_HEADER = len(_MAGIC) + 2  # magic, K, weight of the image; then for each expert h, w (two digits each), channels last
_ENTRY = 5
_WEIGHT = len(_MAGIC) + 1


def pack(frozen: FrozenFeatures, names: Sequence[str]) -> torch.Tensor:
    """(B, N, C) in the dtype of the tokens.

    Args:
        frozen: From `ToVEVisionModel.encode_frozen`.
        names: All experts in the order of the gate's columns; one without a grid is detached.
    """
    t_clip_BND, grids, weight_B = frozen
    header = [*_MAGIC, len(names), 0]
    parts = []
    for name in names:
        height, width, last = 0, 0, False
        if name in grids:
            height, width = grids[name].shape[-2:]
            last = grids[name].stride(1) == 1
            parts.append((grids[name].permute(0, 2, 3, 1) if last else grids[name]).flatten(1))
        header += [height // _BASE, height % _BASE, width // _BASE, width % _BASE, int(last)]
    header_BH = t_clip_BND.new_tensor(header).repeat(len(t_clip_BND), 1)
    header_BH[:, _WEIGHT] = weight_B.to(header_BH.dtype)
    flat_BL = torch.cat([header_BH, t_clip_BND.flatten(1), *parts], dim=1)
    num_tokens = t_clip_BND.shape[1]
    return F.pad(flat_BL, (0, -flat_BL.shape[1] % num_tokens)).unflatten(1, (num_tokens, -1))


def unpack(packed_BNC: torch.Tensor, channels: Mapping[str, int], width: int) -> FrozenFeatures:
    """What was packed, bit for bit.

    Args:
        packed_BNC: From `pack`, whole images.
        channels: Expert -> channels of its grid, all experts in the gate's order.
        width: D.

    Raises:
        ValueError: The tensor is not what `pack` made of this tower's features.
    """
    flat_BL = packed_BNC.flatten(1)
    size = _HEADER + _ENTRY * len(channels)
    header = flat_BL[0, :size].tolist() if packed_BNC.ndim == 3 and len(flat_BL) else []
    if header[: len(_MAGIC) + 1] != [*_MAGIC, len(channels)]:
        raise ValueError(
            f"mm_projector got features of shape {tuple(packed_BNC.shape)} that do not come from its own ToVE tower of "
            f"{len(channels)} experts, or were pooled or resampled on the way; the tower packs them, and only whole "
            "images may be joined or split"
        )
    num_tokens = packed_BNC.shape[1]
    shapes: dict[str, tuple[int, ...]] = {"": (num_tokens, width)}
    channels_last = set()
    for index, (name, num_channels) in enumerate(channels.items()):
        entry = [int(digit) for digit in header[_HEADER + _ENTRY * index :][:_ENTRY]]
        height, width = entry[0] * _BASE + entry[1], entry[2] * _BASE + entry[3]
        if height and entry[4]:
            channels_last.add(name)
        if height:
            shapes[name] = (height, width, num_channels) if entry[4] else (num_channels, height, width)
    sizes = [math.prod(shape) for shape in shapes.values()]
    rest = flat_BL.shape[1] - size - sum(sizes)
    if not 0 <= rest < num_tokens:
        raise ValueError(
            f"mm_projector got {flat_BL.shape[1]} numbers for each image, its tower's header promises "
            f"{size + sum(sizes)}: the tower has other experts, or another CLIP, than the projector was built for"
        )
    pieces = flat_BL[:, size:].split([*sizes, rest], dim=1)
    tensors = {name: piece.contiguous().unflatten(1, shapes[name]) for name, piece in zip(shapes, pieces, strict=False)}
    tensors |= {name: tensors[name].permute(0, 3, 1, 2) for name in channels_last}
    return FrozenFeatures(tensors.pop(""), tensors, weight_B=flat_BL[:, _WEIGHT] != 0)
