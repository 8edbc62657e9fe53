"""Attention over the concatenated rows of a batch, no row seeing another: training without padding.

With LLaVA's lengths 41 % of a padded batch is padding (benchmarks/scaling.py, whose lengths are modelled). The rows of
`data.row_layout.concatenated` have none; the language model is told where each ends by the attention that is chosen
here:

- `tove_varlen`: torch's variable-length flash attention (CUDA, half precision, no dropout of attention weights);
- `tove_rows`: torch's scaled-dot-product attention, row by row (any device and precision; half precision on a CPU is
  computed in float32, which is faster there).

A dense block-diagonal mask, transformers' own way with SDPA, is never made: it takes longer than the padding does.

Shapes: B = 1 batch, H heads, T tokens of all rows, D width of a head.

Source: our choice; the row boundaries are transformers' flash attention arguments.
"""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .parts import base_model, text_config

KINDS = ("llama", "mistral", "qwen2", "qwen3")
"""Types of language models that mix tokens by attention alone and take where rows end: each is tested."""
_VARLEN, _ROWS = "tove_varlen", "tove_rows"


def problem(config: PreTrainedConfig) -> str | None:
    """Why a language model must be trained with padding, or nothing.

    Args:
        config: The language model's.
    """
    if config.model_type not in KINDS:
        return f"`{config.model_type}` is not known to keep rows apart (known are {', '.join(KINDS)})"
    return None


def backend(config: PreTrainedConfig, device: torch.device, dtype: torch.dtype) -> str:
    """The attention that runs on a device.

    Args:
        config: The language model's.
        device: Where it is trained.
        dtype: Of its activations.
    """
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    half = dtype in (torch.float16, torch.bfloat16)
    flash = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    known = importlib.util.find_spec("torch.nn.attention.varlen") is not None
    fits = head_dim % 8 == 0 and head_dim <= 256 and not getattr(config, "attention_dropout", 0.0)
    return _VARLEN if flash and half and known and fits else _ROWS


@contextmanager
def padding_free_attention(model: nn.Module, name: str) -> Iterator[None]:
    """The language model attends by rows, also where gradient checkpointing computes anew, until this is left.

    Args:
        model: A LLaVA model, inside peft or not.
        name: Of `backend`.
    """
    llava = base_model(model)
    configs = {id(config): config for config in (text_config(llava.config), llava.model.language_model.config)}
    before = {key: config._attn_implementation for key, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation = name
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]


def rows_attention(
    module: nn.Module,
    query_BHTD: torch.Tensor,
    key_BHTD: torch.Tensor,
    value_BHTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    row_lengths: tuple[int, ...] | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of each row by itself, as transformers calls it.

    Args:
        module: The attention layer.
        query_BHTD: Queries.
        key_BHTD: Keys; they may have fewer heads.
        value_BHTD: Values.
        attention_mask: None: rows are not padded.
        scaling: Of the logits.
        dropout: Share of the weights that is dropped.
        row_lengths: Tokens of each row, their sum is T.
        sliding_window: Tokens that one sees, itself included; none is all before it.
        kwargs: What else transformers passes on.

    Returns:
        (B, T, H, D), and no weights.

    Raises:
        ValueError: The batch does not say where its rows end.
    """
    lengths, dtype = list(_lengths(row_lengths, query_BHTD)), query_BHTD.dtype
    tensors = [query_BHTD, key_BHTD, value_BHTD]
    if query_BHTD.device.type == "cpu" and dtype.itemsize == 2:
        tensors = [tensor.float() for tensor in tensors]
    parts = [tensor.split(lengths, dim=2) for tensor in tensors]
    outputs = []
    for query, key, value in zip(*parts, strict=True):
        band = _band(query.shape[2], sliding_window, query.device)
        outputs.append(
            F.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=band,
                is_causal=band is None,
                dropout_p=dropout,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).to(dtype).contiguous(), None


def varlen_attention(
    module: nn.Module,
    query_BHTD: torch.Tensor,
    key_BHTD: torch.Tensor,
    value_BHTD: torch.Tensor,
    *args: Any,
    scaling: float | None = None,
    row_lengths: tuple[int, ...] | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The same by one kernel; arguments as of `rows_attention`, and besides:

    Args:
        cu_seq_lens_q: (R + 1,) int32, where rows begin, and T.
    """
    from torch.nn.attention.varlen import varlen_attn

    longest = max(_lengths(row_lengths, query_BHTD))
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query_BHTD, key_BHTD, value_BHTD))
    window = -1 if sliding_window is None or sliding_window > longest else sliding_window - 1
    ends = cast(torch.Tensor, cu_seq_lens_q)
    output_THD = varlen_attn(
        query, key, value, ends, ends, longest, longest,
        scale=scaling, window_size=(window, 0), enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    return cast(torch.Tensor, output_THD)[None], None


def _lengths(row_lengths: tuple[int, ...] | None, query_BHTD: torch.Tensor) -> tuple[int, ...]:
    if row_lengths is None or len(query_BHTD) != 1 or sum(row_lengths) != query_BHTD.shape[2]:
        raise ValueError(
            f"a batch of {len(query_BHTD)} x {query_BHTD.shape[2]} tokens with `row_lengths` {row_lengths} reached an "
            "attention without padding; expected one row of concatenated rows and the length of each, as "
            "ToVECollator(padding_free=True) makes them"
        )
    return row_lengths


def _band(num_tokens: int, sliding_window: int | None, device: torch.device) -> torch.Tensor | None:
    """Which keys (columns) a query sees in a window, or nothing where the window is longer than the row."""
    if sliding_window is None or sliding_window >= num_tokens:
        return None
    ones = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=device)
    return ones.tril() & ones.triu(1 - sliding_window)


# Without an entry in ALL_MASK_ATTENTION_FUNCTIONS transformers makes no mask at all for them.
for _name, _attention in ((_VARLEN, varlen_attention), (_ROWS, rows_attention)):
    ALL_ATTENTION_FUNCTIONS.register(_name, _attention)
