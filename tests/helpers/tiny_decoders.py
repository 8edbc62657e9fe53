"""Tiny language models with cross-attention, saved as anybody's are: without it, and with a tokenizer of their own."""

from pathlib import Path

import torch

from helpers.tiny_lvlm import WORDS

_SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def make_decoder(folder: Path, kind: str = "roberta", seed: int = 0, **changes) -> Path:
    """A folder of a tiny `roberta`, `bert`, `gpt2` or `bart`, its weights spread so that its words differ.

    Args:
        folder: Where; made when it is missing.
        kind: transformers' `model_type`.
        seed: Of its weights.
        **changes: Fields of its configuration.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = _tokenizer(kind)
    tokenizer.save_pretrained(folder)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    common = {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "pad_token_id": tokenizer.pad_token_id}
    fields = {
        "roberta": {**_SIZES, **common, **ids, "type_vocab_size": 1, "is_decoder": True},
        "bert": {**_SIZES, **common, "is_decoder": True},
        "gpt2": {"n_embd": 24, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": len(tokenizer), **ids},
        "bart": {
            **common,
            **ids,
            "d_model": 24,
            "decoder_layers": 2,
            "decoder_attention_heads": 2,
            "decoder_ffn_dim": 48,
            "decoder_start_token_id": tokenizer.eos_token_id,
            "is_decoder": True,
        },
    }[kind] | changes
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.save_pretrained(folder)
    return folder


def _tokenizer(kind: str):
    """Whole words, with the special tokens that the kind has: GPT-2 has one, BERT calls them otherwise."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = {
        "roberta": {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
        "bart": {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
        "bert": {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
        "gpt2": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
    }[kind]
    tokens = [*dict.fromkeys([*special.values(), *WORDS, "true", "false"])]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(tokens)}, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
