"""Tiny random language models of many families, each with the chat template of its kind, in the hub's own format."""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from helpers.chat_tokenizers import make_tokenizer

_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
}
_HEADS = {"head_dim": 16}


class Family(NamedTuple):
    """How a tiny model of a family is made."""

    template: str
    fields: dict[str, Any]
    """Of its configuration, beside the sizes that most have."""
    sizes: dict[str, Any] = _SIZES
    """Under the names of the family."""


FAMILIES = {
    "llama": Family("llama3", {"tie_word_embeddings": False}),
    "qwen2": Family("qwen2_5", {"tie_word_embeddings": True}),
    "qwen3": Family("qwen3", {"tie_word_embeddings": True, **_HEADS}),
    "mistral": Family("mistral", {"sliding_window": None, **_HEADS}),
    "gemma": Family("gemma", _HEADS),
    "gemma3_text": Family("gemma3", {**_HEADS, "query_pre_attn_scalar": 16}),
    "phi3": Family("phi3", {"tie_word_embeddings": False}),
    "smollm3": Family("qwen2_5", {"tie_word_embeddings": True}),
    "granite": Family(
        "completion", {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "attention_multiplier": 0.0625, **_HEADS}
    ),
    "cohere": Family("cohere", {"logit_scale": 0.0625}),
    "qwen3_moe": Family("qwen3", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, **_HEADS}),
    "opt": Family(
        "completion",
        {"word_embed_proj_dim": 32},
        {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "init_std": 0.2}
        | {"max_position_embeddings": 1024},
    ),
    "gpt2": Family(
        "completion",
        {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
        {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 1024, "initializer_range": 0.2},
    ),
}
"""By `model_type`."""


def make_family(folder: Path, name: str, seed: int = 0, **fields: Any) -> Path:
    """A folder with a language model and its tokenizer.

    Args:
        folder: Where.
        name: Of `FAMILIES`.
        seed: Of the weights.
        **fields: Further ones of its configuration.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    family = FAMILIES[name]
    tokenizer = make_tokenizer(family.template, image=False)
    rows = len(tokenizer) + (8 if name.startswith("qwen") else 0)  # Qwen's embeddings have rows to spare
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    settings = {**family.sizes, **family.fields, **ids, "vocab_size": rows, **fields}
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **settings)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
