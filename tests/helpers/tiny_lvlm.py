"""A tiny language model with a sentencepiece tokenizer, and tiny data in LLaVA's format."""

import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from helpers.tiny_towers import SIZE

WORDS = (
    "is the red blue green box ball on left right of what color shape where yes no a picture shows one two ?".split()
)


def make_llm(folder: Path, seed: int = 0, tie: bool = False) -> Path:
    """A LlamaForCausalLM folder of width 32 and 2 layers with its own trained tokenizer."""
    import sentencepiece
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    text = [" ".join(rng.choice(WORDS, 8)) for _ in range(400)] + [
        "USER: ASSISTANT: A chat between a curious user"
    ] * 20
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_writer=written,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        pad_id=-1,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=3,
    )
    (folder / "tokenizer.model").write_bytes(written.getvalue())
    tokenizer = LlamaTokenizer.from_pretrained(folder, pad_token="<unk>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        tie_word_embeddings=tie,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_data(folder: Path, num: int = 24, seed: int = 0, text_only: bool = True) -> Path:
    """`pretrain.json` (captions), `finetune.json` (conversations, every fourth text-only) and `images/`."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    captions, talks = [], []
    for index in range(num):
        name = f"{index}.png"
        pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
        words = list(rng.choice(WORDS, int(rng.integers(3, 9))))
        captions.append(
            {
                "id": f"c{index}",
                "image": name,
                "conversations": [
                    {"from": "human", "value": "<image>\nDescribe."},
                    {"from": "gpt", "value": " ".join(words)},
                ],
            }
        )
        with_image = not (text_only and index % 4 == 3)
        talk = {
            "id": f"t{index}",
            "conversations": [
                {"from": "human", "value": ("<image>\n" if with_image else "") + f"what is {words[0]} ?"},
                {"from": "gpt", "value": " ".join(words[1:])},
                {"from": "human", "value": "where ?"},
                {"from": "gpt", "value": words[-1]},
            ],
        }
        talks.append(talk | ({"image": name} if with_image else {}))
    (folder / "pretrain.json").write_text(json.dumps(captions))
    (folder / "finetune.json").write_text(json.dumps(talks))
    return folder
