"""Let LAVIS's copies of OPT and BERT generate under transformers 5.

LAVIS gives `generate` embeddings of query tokens that stand before `input_ids`, and repeats them for each beam, which
transformers 4.26 left to it. Since 4.27 `generate` repeats every tensor itself, and by now its cache is an object where
LAVIS's models want tuples. So each tensor is given once for each prompt, and the short sequence (query tokens, prompt,
caption) is computed anew at each step, without a cache. Lengths still count `input_ids`, prompt included.
"""

import functools
from typing import Any

import torch
from transformers import GenerationMixin


def adapt(cls: Any) -> None:
    """Give a model class of LAVIS's `generate` and an adapted `prepare_inputs_for_generation`.

    Args:
        cls: Has its own `prepare_inputs_for_generation` in the manner of transformers 4.26.
    """
    prepare = cls.prepare_inputs_for_generation

    @functools.wraps(prepare)
    def prepare_inputs_for_generation(self, input_ids, **kwargs):
        inputs = prepare(self, input_ids, **{**kwargs, "past": None})
        if inputs.get("query_embeds") is not None:
            inputs["attention_mask"] = _with_queries(inputs["attention_mask"], inputs["query_embeds"], input_ids)
        return {**inputs, "past_key_values": None, "use_cache": False}

    @functools.wraps(GenerationMixin.generate)
    def generate(self, input_ids=None, **kwargs):
        if input_ids is not None:
            kwargs = {name: _once_for_each(value, len(input_ids)) for name, value in kwargs.items()}
        if input_ids is not None and kwargs.get("attention_mask") is not None:
            # transformers 5 counts it in tokens of `input_ids`; what LAVIS says of the query tokens is always 1.
            kwargs["attention_mask"] = kwargs["attention_mask"][:, -input_ids.shape[1] :]
        return GenerationMixin.generate(self, input_ids, **{**kwargs, "use_cache": False})

    cls.prepare_inputs_for_generation = prepare_inputs_for_generation
    cls.generate = generate


def _with_queries(mask: torch.Tensor, query_embeds: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    """The mask over query tokens and text, where it does not cover the former yet."""
    absent = query_embeds.shape[1] + input_ids.shape[1] - mask.shape[1]
    return torch.cat([mask.new_ones(len(mask), absent), mask], dim=1)


def _once_for_each(value: object, prompts: int) -> object:
    """Every n-th row of a tensor that was repeated n times (`repeat_interleave`) for each prompt."""
    if isinstance(value, torch.Tensor) and value.dim() > 1 and len(value) > prompts and len(value) % prompts == 0:
        return value[:: len(value) // prompts]
    return value
