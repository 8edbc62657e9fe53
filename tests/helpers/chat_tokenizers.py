"""Tiny tokenizers with the chat templates of real models, which the package trl ships as files."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_lvlm import WORDS
from tove_lvlm.data.turns import IMAGE_TOKEN

# Templates that no package ships, in the form of their models'.
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
COMPLETION = (
    "{% for message in messages %}"
    "{{ ('Question: ' if message['role'] == 'user' else 'Answer: ') + message['content'] }}"
    "{{ '\\n' if message['role'] == 'user' else eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Answer: ' }}{% endif %}"
)
"""What somebody may write for a base model without a template, such as GPT-2 or OPT."""
_SPECIAL = re.compile(r"<[|/]?[a-zA-Z_0-9]+\|?>")


def shipped_templates() -> list[str]:
    """Names of the templates that trl ships; none where it is not installed."""
    found = importlib.util.find_spec("trl")
    folder = Path(found.origin).parent / "chat_templates" if found and found.origin else Path()
    return sorted(path.stem for path in folder.glob("*.jinja"))


def template(name: str) -> str:
    """A template's Jinja text: one of this module, or one that trl ships."""
    if name in ("mistral", "completion"):
        return {"mistral": MISTRAL, "completion": COMPLETION}[name]
    found = importlib.util.find_spec("trl")
    if found is None or found.origin is None:
        pytest.skip("the package trl, which ships chat templates of real models, is not installed")
    return (Path(found.origin).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def make_tokenizer(name: str, eos: str = "<eos>", image: bool = True) -> Any:
    """A byte-level BPE tokenizer with a template, whose words and special tokens it has.

    Args:
        name: Of the template.
        eos: The token that ends a text.
        image: Whether it has the token `<image>`.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    said = template(name)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False, min_frequency=1)
    tokenizer.train_from_iterator([said, *WORDS, *(f" {word}" for word in WORDS)], trainer)
    special = {*_SPECIAL.findall(said)} - {"<think>", "</think>", IMAGE_TOKEN} | ({IMAGE_TOKEN} if image else set())
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=eos, bos_token="<bos>", additional_special_tokens=sorted(special)
    )
    made.chat_template = said
    return made
