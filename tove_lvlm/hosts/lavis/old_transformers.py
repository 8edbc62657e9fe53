"""The functions of transformers 4.26 that LAVIS's wheel names and transformers 5 has no more. Written anew.

Shapes: B batch, H heads, L layers, Q query and K key positions.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from transformers.pytorch_utils import apply_chunking_to_forward, prune_linear_layer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "apply_chunking_to_forward",
    "find_pruneable_heads_and_indices",
    "get_extended_attention_mask",
    "get_head_mask",
    "invert_attention_mask",
    "model_parallel_utils",
    "prune_linear_layer",
]


def find_pruneable_heads_and_indices(
    heads: list[int], n_heads: int, head_size: int, already_pruned_heads: set[int]
) -> tuple[set[int], torch.Tensor]:
    """Which heads are still to be pruned, and which rows of a projection remain after that.

    Args:
        heads: Heads to prune, numbered as in the model before any pruning.
        n_heads: Heads that there are now.
        head_size: Rows of one head.
        already_pruned_heads: Those pruned before.

    Returns:
        The heads that are left to prune, and the indices of the rows to keep.
    """
    to_prune = set(heads) - already_pruned_heads
    gone = {head - sum(pruned < head for pruned in already_pruned_heads) for head in to_prune}
    remaining = [head for head in range(n_heads) if head not in gone]
    rows = torch.arange(n_heads * head_size).view(n_heads, head_size)[remaining].reshape(-1)
    return to_prune, rows


def get_head_mask(
    self: "PreTrainedModel", head_mask: torch.Tensor | None, num_hidden_layers: int, is_attention_chunked: bool = False
) -> Any:
    """A mask over heads, (H,) or (L, H), so that layer i can multiply its attention with entry i; None stays none."""
    if head_mask is None:
        return [None] * num_hidden_layers
    mask_LH = head_mask.expand(num_hidden_layers, -1) if head_mask.dim() == 1 else head_mask
    mask = mask_LH[:, None, :, None, None].to(self.dtype)  # (L, 1, H, 1, 1)
    return mask.unsqueeze(-1) if is_attention_chunked else mask


def get_extended_attention_mask(
    self: "PreTrainedModel", attention_mask: torch.Tensor, input_shape: tuple[int, int], *args: Any, **kwargs: Any
) -> torch.Tensor:
    """As `invert_attention_mask`, and in a decoder nobody looks ahead: the Q of `input_shape` are the last of the K."""
    if self.config.is_decoder and attention_mask.dim() == 2:
        queries, keys = input_shape[1], attention_mask.shape[1]
        causal_QK = attention_mask.new_ones(queries, keys).tril(keys - queries)
        attention_mask = attention_mask[:, None, :] * causal_QK
    return invert_attention_mask(self, attention_mask)


def invert_attention_mask(self: "PreTrainedModel", encoder_attention_mask: torch.Tensor) -> torch.Tensor:
    """1 for "attend" and 0 for "do not", (B, K) or (B, Q, K), as what is added to attention scores."""
    if encoder_attention_mask.dim() not in (2, 3):
        raise ValueError(f"an attention mask has {encoder_attention_mask.dim()} dimensions; expected 2 or 3")
    heads_next = encoder_attention_mask.dim() == 3
    mask = encoder_attention_mask[:, None] if heads_next else encoder_attention_mask[:, None, None]
    return (1.0 - mask.to(self.dtype)) * torch.finfo(self.dtype).min


def model_parallel_utils(name: str) -> ModuleType:
    """The module of that name: LAVIS's T5 imports it for `parallelize`, which transformers dropped long ago."""
    module: Any = ModuleType(name)
    module.assert_device_map = module.get_device_map = _no_device_map
    return module


def _no_device_map(*args, **kwargs) -> NoReturn:
    raise NotImplementedError("`parallelize` of LAVIS's T5 needs transformers 4.26, whose device maps are gone since")
