"""The miniature's tokenizer: a sentencepiece BPE that holds every word of the world as one piece."""

import io
import json
import re
from pathlib import Path

import sentencepiece

from tove_lvlm.world import language, maplang

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
"""The system prompt of LLaVA's v1 template."""
BYTES = 3 + 256  # <unk> <s> </s> and the bytes
MAX_PIECES = 640
_UNIT = re.compile(r" ?[A-Z]{2,}:| ?[A-Za-z]+| ?[0-9]+")
_INITIALS = ("USER:", "ASSISTANT:", "Is", "What", "Which", "How", "The", "Describe")  # also without a space before


def units() -> list[str]:
    """Every word that must be one piece, each with the space that stands before it in running text, sorted."""
    words = {f" {word}" for word in (*maplang.WORDS, *_INITIALS)} | set(_INITIALS)
    for line in (SYSTEM, *language.corpus()):
        words.update(_UNIT.findall(f" {line}"))
    return sorted(words)


def train() -> bytes:
    """The smallest BPE model that holds every unit as one piece: a sentencepiece model, serialised.

    Raises:
        RuntimeError: No vocabulary of at most MAX_PIECES does.
    """
    pieces = units()
    low, high = BYTES + 1, MAX_PIECES
    best = None
    while low <= high:
        size = (low + high) // 2
        model = _train(pieces, size)
        if model is not None and _holds(model, pieces):
            best, high = model, size - 1
        else:
            low = size + 1
    if best is None:
        raise RuntimeError(
            f"no vocabulary of at most {MAX_PIECES} pieces holds all {len(pieces)} words; raise MAX_PIECES"
        )
    return _with_llama_prefix(best)


def save(folder: Path, model_max_length: int) -> None:
    """Write `tokenizer.model` and what `AutoTokenizer.from_pretrained(folder)` needs into `folder`."""
    from transformers import LlamaTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(train())
    options = {"model_max_length": model_max_length, "pad_token": "<unk>", "padding_side": "right"}
    tokenizer = LlamaTokenizer.from_pretrained(folder, add_bos_token=True, **options)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    for how_it_was_loaded in ("is_local", "local_files_only"):
        settings.pop(how_it_was_loaded, None)
    path.write_text(json.dumps(settings, indent=2) + "\n")


def _train(words: list[str], size: int) -> bytes | None:
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([word for word in words for _ in range(20)]),
            model_writer=written,
            model_type="bpe",
            vocab_size=size,
            byte_fallback=True,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,  # the units bring their own space
            split_by_unicode_script=False,
            split_by_number=False,
            character_coverage=1.0,
            required_chars="".join(map(chr, range(33, 127))),
            num_threads=1,
            minloglevel=3,
        )
    except RuntimeError:  # too small for the required characters, or more pieces than merges
        return None
    return written.getvalue()


def _holds(model: bytes, words: list[str]) -> bool:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return all(len(processor.encode(word)) == 1 for word in words)


def _with_llama_prefix(model: bytes) -> bytes:
    """As Llama's model: a space is put before the text."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    proto.normalizer_spec.add_dummy_prefix = True
    return proto.SerializeToString()
