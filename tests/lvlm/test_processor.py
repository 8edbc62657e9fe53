"""The saved processor's chat template: stock tools ask with the ids that the model was trained on."""

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
WORDS = {"type": "text", "text": "what is red ?\nyes or no"}


@pytest.fixture
def saved(built, tmp_path):
    """(model, processor) of a saved folder, as a stock tool opens it."""
    model, processor = built
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
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    ids = processor(images=[Image.new("RGB", (20, 16))], text=text, return_tensors="pt")["input_ids"][0].tolist()
    assert ids == LlavaResponder(model, processor).encode_question("what is red ?\nyes or no", True)


def test_rounds_and_texts_without_an_image(saved):
    _, processor = saved
    said = [("user", " what ? "), ("assistant", "box"), ("user", "where ?")]
    rounds = [{"role": role, "content": text} for role, text in said]
    ours = [{"from": {"user": "human", "assistant": "gpt"}[role], "value": text} for role, text in said]
    assert processor.apply_chat_template(rounds, add_generation_prompt=True) == build_prompt(ours, "v1")
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "what ?"}]
    assert processor.apply_chat_template(asked) == "Be brief. USER: what ? "
    asked[0]["content"] = [{"type": "text", "text": "Be brief."}]
    assert processor.apply_chat_template(asked) == "Be brief. USER: what ? "


@pytest.mark.parametrize(
    ("content", "question"),
    [
        ([PICTURE, PICTURE, WORDS], "what is red ?\nyes or no"),
        ("is <image> left of <image> ?", "is <image> left of <image> ?"),
    ],
)
def test_several_images_keep_their_places(saved, content, question):
    model, processor = saved
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    pictures = [Image.new("RGB", (20, 16))] * 2
    ids = processor(images=pictures, text=text, return_tensors="pt")["input_ids"][0].tolist()
    assert ids == LlavaResponder(model, processor).encode_question(question, 2)


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
    assert tokenizer(text).input_ids == expand_image_tokens(ids, ids, tokenizer.convert_tokens_to_ids("<image>"), 1)


def test_a_tokenizer_that_no_template_suits_is_named(built, caplog):
    tokenizer = built[1].tokenizer

    class Odd:
        bos_token_id, is_fast = tokenizer.bos_token_id, False

        def __call__(self, text):
            return tokenizer(text + " odd")

        def convert_tokens_to_ids(self, token):
            return tokenizer.convert_tokens_to_ids(token)

    assert "<image>\\n" in v1_chat_template(Odd())
    assert "Odd tokenises the text after <image>" in caplog.text
