"""The real LLaVA of `llava-torch`, for comparing ours with it.

`llava.train.train` was written for transformers 4 and imports one name that has moved since; it is put back for the
time of the import. Only functions that need nothing else of transformers 4 are used: the preprocessing, the grouping
and the image helpers.
"""

import importlib
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest


def load() -> SimpleNamespace:
    """LLaVA's modules `train`, `trainer`, `mm_utils` and `conversation`; skips the test if LLaVA is not installed."""
    if importlib.util.find_spec("llava") is None:
        pytest.skip("llava-torch is not installed: pip install --no-deps llava-torch==1.2.2.post1")
    import transformers.pytorch_utils
    import transformers.trainer

    moved = "ALL_LAYERNORM_LAYERS"
    missing = not hasattr(transformers.trainer, moved)
    if missing:
        setattr(transformers.trainer, moved, getattr(transformers.pytorch_utils, moved))
    try:
        train = importlib.import_module("llava.train.train")
    finally:
        if missing:
            delattr(transformers.trainer, moved)
    return SimpleNamespace(
        train=train,
        trainer=importlib.import_module("llava.train.llava_trainer"),
        mm_utils=importlib.import_module("llava.mm_utils"),
        conversation=importlib.import_module("llava.conversation"),
    )


def llama2_tokenizer_file() -> Path:
    """The tokenizer JSON of Llama-2, which the package `wordllama` ships; skips the test if it is not installed."""
    spec = importlib.util.find_spec("wordllama")
    if spec is None:
        pytest.skip("wordllama, which ships the Llama-2 tokenizer, is not installed: pip install wordllama")
    return Path(spec.origin).parent / "tokenizers" / "l2_supercat_tokenizer_config.json"


def legacy_tokenizer(max_length: int = 2048):
    """Llama-2's tokenizer as its file has it: a word after `</s>` gets a space (`legacy`)."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(llama2_tokenizer_file()),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
        padding_side="right",
        model_max_length=max_length,
    )
    tokenizer.legacy = True  # LLaVA asks for it
    return tokenizer


def current_tokenizer(max_length: int = 2048, add_bos: bool = True):
    """The same vocabulary as transformers 5 builds it, and as Vicuna 1.5 sets it: not `legacy`."""
    from transformers import LlamaTokenizer

    model = json.loads(llama2_tokenizer_file().read_text())["model"]
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    return LlamaTokenizer(
        vocab=model["vocab"],
        merges=merges,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
        padding_side="right",
        model_max_length=max_length,
        add_bos_token=add_bos,
    )


def encode(llava: SimpleNamespace, tokenizer, conversation: list[dict], template: str, has_image: bool):
    """What LLaVA's dataset makes of a conversation: lists (input_ids, labels)."""
    import copy

    sources = [copy.deepcopy(conversation)]
    known = {"v1": llava.conversation.conv_templates["v1"], "plain": llava.conversation.conv_templates["plain"]}
    before = llava.conversation.default_conversation
    llava.conversation.default_conversation = known[template]
    try:
        if has_image:
            flags = SimpleNamespace(is_multimodal=True, mm_use_im_start_end=False)
            sources = llava.train.preprocess_multimodal(sources, flags)
        encoded = llava.train.preprocess(sources, tokenizer, has_image=has_image)
    finally:
        llava.conversation.default_conversation = before
    return encoded["input_ids"][0].tolist(), encoded["labels"][0].tolist()
