"""What hosts of 2023 name and transformers 5 has no more: functions of transformers 4.26, written anew.

LAVIS's modules import them, and so do the copies of BLIP-2's Q-Former in LLaVA's relatives: `lent_names`. LAVIS's own
classes get the methods (`lavis/compat.py`).

Shapes: B batch, H heads, L layers, Q query and K key positions.
"""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from transformers.pytorch_utils import apply_chunking_to_forward, prune_linear_layer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MODEL_PARALLEL = "transformers.utils.model_parallel_utils"


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


_LENT: dict[str, tuple[Callable[..., Any], ...]] = {
    "transformers.modeling_utils": (
        apply_chunking_to_forward,
        find_pruneable_heads_and_indices,
        prune_linear_layer,
    ),
    "transformers.pytorch_utils": (find_pruneable_heads_and_indices,),
}


@contextlib.contextmanager
def lent_names() -> Iterator[list[str]]:
    """Within it transformers has the old names that hosts' modules import; after it, it is as before.

    Yields:
        The names that were missing.
    """
    lent: list[tuple[ModuleType, str]] = []
    names: list[str] = []
    try:
        for module_name, functions in _LENT.items():
            module = importlib.import_module(module_name)
            for function in functions:
                name = function.__name__
                if not hasattr(module, name):
                    setattr(module, name, function)
                    lent.append((module, name))
                    names.append(f"{module_name}.{name}")
        if importlib.util.find_spec(_MODEL_PARALLEL) is None:
            sys.modules[_MODEL_PARALLEL] = model_parallel_utils(_MODEL_PARALLEL)
            names.append(_MODEL_PARALLEL)
        yield names
    finally:
        for module, name in lent:
            delattr(module, name)
        if _MODEL_PARALLEL in names:
            sys.modules.pop(_MODEL_PARALLEL, None)
