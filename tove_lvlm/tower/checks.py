"""What a host may ask of a tower, and whether it has loaded all of it."""

from collections.abc import Iterable

import torch
from torch import nn

from ..storage import WeightsError


def check_pixels(pixel_values: torch.Tensor, size: int) -> None:
    """Refuse what is no batch of square images of the tower's size.

    Args:
        pixel_values: Expected (B, 3, size, size).
        size: Of the tower's input.

    Raises:
        ValueError: Another shape.
    """
    if not isinstance(pixel_values, torch.Tensor) or pixel_values.ndim != 4:
        shape = tuple(pixel_values.shape) if isinstance(pixel_values, torch.Tensor) else type(pixel_values).__name__
        raise ValueError(f"pixel_values are {shape}; expected one tensor (B, 3, {size}, {size})")
    if pixel_values.shape[1:] != (3, size, size):
        height, width = pixel_values.shape[-2:]
        reason = "" if height == width else " (images must be square: experts are resampled to a square token grid)"
        raise ValueError(
            f"pixel_values have shape {tuple(pixel_values.shape)}; expected (B, 3, {size}, {size}){reason}; use "
            "the tower's ToVEImageProcessor"
        )


def check_selected_layers(output_hidden_states: bool | int | list[int] | None) -> None:
    """Refuse a host that is going to read the tokens without the experts.

    Args:
        output_hidden_states: As LLaVA gives it: the layer, or layers, that it selects.

    Raises:
        ValueError: It selects another layer than the last.
    """
    layers = output_hidden_states if isinstance(output_hidden_states, list | tuple) else [output_hidden_states]
    unsupported = [layer for layer in layers if not isinstance(layer, bool | None) and layer not in (-1, 1)]
    if unsupported:
        raise ValueError(
            f"the host selects layer {unsupported[0]} of the tower, which holds CLIP's tokens without the "
            "experts; set `vision_feature_layer` to -1 and `vision_feature_select_strategy` to `full`"
        )


def check_all_loaded(tower: nn.Module) -> None:
    """Refuse a checkpoint that lacks weights; transformers only warns and leaves them random.

    Args:
        tower: As transformers has loaded it, each tensor that it has read marked.

    Raises:
        WeightsError: Tensors that are missing, or have another shape.
    """
    persistent = tower.state_dict().keys()
    tensors = [*tower.named_parameters(), *tower.named_buffers()]
    # What is still on the meta device here was offloaded to disk: it is read when it is used.
    missing = [
        name
        for name, tensor in tensors
        if name in persistent and not tensor.is_meta and not getattr(tensor, "_is_hf_initialized", False)
    ]
    if missing:
        raise WeightsError(
            f"the checkpoint lacks {len(missing)} of {len(persistent)} tensors of the tower "
            f"({', '.join(missing[:3])}, ...), or has them in another shape; they would be random. The load report "
            "above names its folder"
        )


def transfer_hint(expected: Iterable[str], loaded: Iterable[str]) -> str:
    """For a message about tensors that do not fit: what to write in the tower's YAML, if one key of it is the cause.

    Args:
        expected: Names of the tower's tensors.
        loaded: Names of those that were given.
    """
    wanted, given = _transfer_of(expected), _transfer_of(loaded)
    if None in (wanted, given) or wanted == given:
        return ""
    before = " and `expert_resample: bilinear`, the defaults of then" if given == "separate" else ""
    return f"; it was trained with `fusion: {{transfer: {given}}}`: write that in the tower's YAML{before}"


def _transfer_of(names: Iterable[str]) -> str | None:
    """`fusion.transfer` of the tower that tensors belong to, by their names."""
    fusion = [name.split("tove_fusion.", 1)[1] for name in names if "tove_fusion." in name]
    for part, transfer in (("shared_out.", "shared_out"), ("shared_transfer.", "shared")):
        if any(name.startswith(part) for name in fusion):
            return transfer
    return "separate" if any(name.startswith("transfers.") and ".fc2." in name for name in fusion) else None
