"""Attention caches of a common beginning, taken apart and put together row by row.

`generate` and every forward add to the cache that they are given, so what is kept is never given away itself: `joined`
makes a new cache, `read_by` one that is not added to. Only layers that attend to everything are handled: one with a
window counts columns, padded ones too, and these lie elsewhere here.

Shapes: B rows, H heads, T tokens, D a head's width.
"""

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from transformers import DynamicCache, LlavaForConditionalGeneration
from transformers.cache_utils import Cache, DynamicLayer

CACHE = "cache" if "cache" in signature(LlavaForConditionalGeneration.forward).parameters else "past_key_values"
"""Name of a model's cache among its arguments and in its output: another one since transformers 5.24."""


class _FilledLayer(DynamicLayer):
    """With keys and values from the start, which `update` would copy."""

    def __init__(self, keys_BHTD: torch.Tensor, values_BHTD: torch.Tensor):
        super().__init__()
        self.lazy_initialization(keys_BHTD, values_BHTD)
        self.keys: torch.Tensor = keys_BHTD
        self.values: torch.Tensor = values_BHTD


class _ReadLayer(_FilledLayer):
    """Keys and values that further rows attend to; theirs are not added."""

    def __init__(self, layer: Any, rows_B: torch.Tensor):
        super().__init__(layer.keys, layer.values)
        self._rows_B = rows_B.to(layer.keys.device)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys_BHTD = torch.cat([self.keys[self._rows_B], key_states], dim=-2)
        return keys_BHTD, torch.cat([self.values[self._rows_B], value_states], dim=-2)


def can_be_shared(config: Any) -> bool:
    """Whether every layer of a language model attends to all that came before.

    Args:
        config: The language model's.
    """
    layers = DynamicCache(config=config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def split(cache: Any) -> list[Cache]:
    """A cache for each row; the rows share the memory of the whole."""
    rows = range(len(cache.layers[0].keys))
    return [
        Cache(layers=[_FilledLayer(one.keys[row : row + 1], one.values[row : row + 1]) for one in cache.layers])
        for row in rows
    ]


def joined(caches: Sequence[Any]) -> Cache:
    """One cache with the rows of some, all of one length; the given ones stay as they are."""
    layers = zip(*(cache.layers for cache in caches), strict=True)
    return Cache(
        layers=[
            _FilledLayer(torch.cat([one.keys for one in layer]), torch.cat([one.values for one in layer]))
            for layer in layers
        ]
    )


def read_by(cache: Any, rows_B: torch.Tensor) -> Cache:
    """A cache for one forward of other rows, whose own keys and values are not kept.

    The copies for the rows exist a layer at a time, so that 128 answers to a question do not take 128 caches.

    Args:
        cache: Stays as it is.
        rows_B: Which of its rows each of them goes on from.
    """
    return Cache(layers=[_ReadLayer(layer, rows_B) for layer in cache.layers])


def num_bytes(cache: Any) -> int:
    """What the keys and values of a cache take."""
    return sum(
        tensor.numel() * tensor.element_size() for layer in cache.layers for tensor in (layer.keys, layer.values)
    )
