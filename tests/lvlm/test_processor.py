"""The saved processor's chat template: stock tools ask with the ids that the model was trained on."""

import copy
import json

import pytest
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer

from helpers.tiny_lvlm import make_llm
from tove_lvlm.data.conversations import build_prompt, encode_prompt, expand_image_tokens
from tove_lvlm.inference import LlavaResponder
from tove_lvlm.lvlm.processor import v1_chat_template

MARK = "\u2581"
PICTURE = {"type": "image"}
TEXT = "what is red ?\nyes or no"
WORDS = {"type": "text", "text": TEXT}


def ids_of(processor, content, num_images: int) -> list[int]:
    """As servers have them, which tokenise what the template renders and add nothing; transformers adds nothing too."""
    talk, pictures = [{"role": "user", "content": content}], [Image.new("RGB", (20, 16))] * num_images
    text = processor.apply_chat_template(talk, add_generation_prompt=True)
    served = processor(images=pictures, text=text, add_special_tokens=False)["input_ids"][0]
    if not isinstance(content, str):
        shown = iter(pictures)
        talk[0]["content"] = [dict(part, image=next(shown)) if part == PICTURE else part for part in content]
        told = processor.apply_chat_template(talk, add_generation_prompt=True, tokenize=True, return_dict=True)
        assert list(told["input_ids"][0]) == list(served)
    begins = processor.tokenizer("").input_ids == [processor.tokenizer.bos_token_id]
    assert served.count(processor.tokenizer.bos_token_id) == int(begins)
    return list(served)


@pytest.fixture(params=[True, False], ids=["begins with BOS", "without BOS"])
def saved(built, tmp_path, request):
    """(model, processor) of a saved folder, as a stock tool opens it."""
    model, processor = built[0], copy.deepcopy(built[1])
    tokenizer = processor.tokenizer
    tokenizer.add_bos_token = request.param
    tokenizer.chat_template = processor.chat_template = v1_chat_template(tokenizer)
    processor.save_pretrained(tmp_path)
    return model, AutoProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        [PICTURE, WORDS],
        [WORDS, PICTURE],  # LLaVA puts the image first wherever it stood
        "<image>\nwhat is red ?\nyes or no",
        "what is red ?\nyes or no <image> ",
    ],
)
def test_whole_tokenisation_gives_the_trained_ids(saved, content):
    model, processor = saved
    assert processor.tokenizer.chat_template == processor.chat_template, "tools read either"
    assert ids_of(processor, content, 1) == LlavaResponder(model, processor).encode_question(TEXT, 1)


def test_rounds_and_texts_without_an_image(saved):
    _, processor = saved
    said = [("user", " what ? "), ("assistant", "box"), ("user", "where ?")]
    rounds = [{"role": role, "content": text} for role, text in said]
    ours = [{"from": {"user": "human", "assistant": "gpt"}[role], "value": text} for role, text in said]
    start = "<s> " if processor.tokenizer("").input_ids else ""
    assert processor.apply_chat_template(rounds, add_generation_prompt=True) == start + build_prompt(ours, "v1")
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "what ?"}]
    assert processor.apply_chat_template(asked) == f"{start}Be brief. USER: what ? "
    asked[0]["content"] = [{"type": "text", "text": "Be brief."}]
    assert processor.apply_chat_template(asked) == f"{start}Be brief. USER: what ? "


@pytest.mark.parametrize(
    ("content", "question"),
    [
        ([PICTURE, PICTURE, WORDS], "what is red ?\nyes or no"),
        ("is <image> left of <image> ?", "is <image> left of <image> ?"),
    ],
)
def test_several_images_keep_their_places(saved, content, question):
    model, processor = saved
    assert ids_of(processor, content, 2) == LlavaResponder(model, processor).encode_question(question, 2)


@pytest.mark.parametrize("everywhere", [True, False], ids=["word mark on every piece", "word mark at the start only"])
def test_either_kind_of_llama_tokenizer(tmp_path, everywhere):
    """Vicuna's own tokenizer.json starts each piece with its word mark; newer ones only the text."""
    folder = make_llm(tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["normalizer"] = content["pre_tokenizer"] = None
    if everywhere:
        steps = [{"type": "Prepend", "prepend": MARK}, {"type": "Replace", "pattern": {"String": " "}, "content": MARK}]
        content["normalizer"] = {"type": "Sequence", "normalizers": steps}
    else:
        content["pre_tokenizer"] = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": False}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "TokenizersBackend"}))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.chat_template = v1_chat_template(tokenizer)
    asked = [{"role": "user", "content": "<image>\nwhat is red ?"}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert ("<image>\n" in text) == everywhere
    ids = encode_prompt(tokenizer, [{"from": "human", "value": "<image>\nwhat is red ?"}])
    assert tokenizer(text, add_special_tokens=False).input_ids == expand_image_tokens(
        ids, ids, tokenizer.convert_tokens_to_ids("<image>"), 1
    )


def test_a_tokenizer_that_no_template_suits_is_named(built, caplog):
    tokenizer = built[1].tokenizer

    class Odd:
        bos_token, bos_token_id, is_fast = tokenizer.bos_token, tokenizer.bos_token_id, False

        def __call__(self, text, **options):
            return tokenizer(text + " odd", **options)

        def convert_tokens_to_ids(self, token):
            return tokenizer.convert_tokens_to_ids(token)

    assert "<image>\\n" in v1_chat_template(Odd())
    assert "Odd tokenises the text after <image>" in caplog.text
