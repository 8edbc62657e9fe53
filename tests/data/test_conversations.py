"""Conversation rules that need no reference: what is refused, where answers lie, tokenizers without offsets."""

import random
from types import SimpleNamespace

import pytest

from tove_lvlm.data.conversations import (
    build_prompt,
    encode,
    encode_prompt,
    encode_v1,
    expand_image_tokens,
    get_template,
    render,
)
from tove_lvlm.data.errors import DataError


def human(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


class NoOffsets:
    """A tokenizer as transformers' Python ones: ids only."""

    is_fast = False

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.bos_token_id = tokenizer.bos_token_id

    def __call__(self, text):
        return SimpleNamespace(input_ids=self.tokenizer(text).input_ids)


class Words(NoOffsets):
    """Letters in pairs: tokens cross the edges of answers. No BOS."""

    def __init__(self):
        self.bos_token_id = None

    def __call__(self, text):
        return SimpleNamespace(input_ids=[hash(text[i : i + 2]) for i in range(0, len(text), 2)])


def test_rendered_text_and_answers():
    rendered = render(get_template("v1"), [human("<image> Who?"), gpt("Me."), human("Why?"), gpt("So.")], True)
    system = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    )
    assert rendered.text == f"{system} USER: <image>\nWho? ASSISTANT: Me.</s>USER: Why? ASSISTANT: So.</s>"
    assert [rendered.text[start:end] for start, end in rendered.answers] == [" Me.</s>", " So.</s>"]
    plain = render(get_template("plain"), [human("Describe.\n<image>"), gpt("A cat.")], True)
    assert plain.text == "<image>A cat.\n"
    assert plain.text[slice(*plain.answers[0])] == "A cat.\n"


def test_labels_are_the_answers(tokenizer):
    ids, labels = encode_v1(
        tokenizer, [human("<image>\nWho?"), gpt("Me, \u00e9\U0001f600."), human("Why?"), gpt("So.")]
    )
    assert len(ids) == len(labels)
    assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
    answers = "".join(tokenizer.convert_ids_to_tokens([label for label in labels if label != -100]))
    byte_tokens = "".join(f"<0x{byte:02X}>" for byte in "\U0001f600".encode())
    assert answers == f"\u2581Me,\u2581\u00e9{byte_tokens}.</s>\u2581So.</s>"
    assert labels[ids.index(-200)] == -100


def test_tokenizer_without_offsets_gives_the_same(tokenizer):
    rng = random.Random(0)
    texts = ["a", " b ", "\n\nc", "d  e\t", "\u00e9\U0001f600", "x</s>y", "USER: z", "1 2", ""]
    for number in range(60):
        turns = [make(rng.choice(texts)) for _ in range(rng.randint(1, 4)) for make in (human, gpt)]
        if number % 2:
            turns[0]["value"] += "<image>"
        assert encode_v1(NoOffsets(tokenizer), turns) == encode_v1(tokenizer, turns), turns
    caption = [human("<image>"), gpt(" two words\n")]
    assert encode(NoOffsets(tokenizer), caption, "plain") == encode(tokenizer, caption, "plain")


def test_tokenizer_that_merges_across_an_answer_is_refused():
    with pytest.raises(ValueError, match="merges text across the edge of an answer"):
        encode_v1(Words(), [human("odd?"), gpt("yes"), human("even"), gpt("no")])


def test_leading_gpt_turn_is_dropped(tokenizer):
    turns = [human("a"), gpt("b")]
    assert encode_v1(tokenizer, [gpt("hello"), *turns]) == encode_v1(tokenizer, turns)


@pytest.mark.parametrize(
    ("conversation", "has_image", "message"),
    [
        ([], False, "at least one turn"),
        (None, False, "at least one turn"),
        ("text", False, "at least one turn"),
        (["text"], False, "turn 0 must be an object"),
        ([{"from": "human"}], False, "turn 0 must be an object"),
        ([human("a"), {"from": "gpt", "value": 3}], False, "turn 1 must be an object"),
        ([{"from": "system", "value": "a"}, gpt("b")], False, "no human turn"),
        ([human("a"), {"from": "system", "value": "a"}, gpt("b")], False, "turn 1 is from 'system'"),
        ([{"from": "system", "value": "<image>"}, human("a"), gpt("b")], False, "the system turn has <image>"),
        ([{"from": "Human", "value": "a"}, gpt("b")], False, "turn 0 is from 'Human'"),
        ([{"value": "a"}, gpt("b")], False, "turn 0 is from None"),
        ([{"from": ["human"], "value": "a"}, gpt("b")], False, "turn 0 is from"),
        ([human("a"), gpt("b"), gpt("b")], False, "turn 2 is from 'gpt' after another 'gpt'"),
        ([human("a"), human("a"), gpt("b")], False, "turn 1 is from 'human' after another 'human'"),
        ([gpt("a"), gpt("b")], False, "turn 1 is from 'gpt' after another 'gpt'"),
        ([gpt("a")], False, "no human turn"),
        ([human("<image>\na"), gpt("b")], False, "the sample has no image"),
        ([human("a"), gpt("b")], True, "0 of its turns"),
        ([gpt("<image>"), human("a"), gpt("b")], True, "0 of its turns"),
        ([human("<image>a"), gpt("b"), human("<image>c"), gpt("d")], True, "2 of its turns"),
        ([human("a \ud83d"), gpt("b")], False, "turn 0 holds half of a surrogate pair"),
    ],
)
def test_bad_conversations_are_named(tokenizer, conversation, has_image, message):
    with pytest.raises(DataError, match=message):
        encode_v1(tokenizer, conversation, has_image)


@pytest.mark.parametrize(
    ("conversation", "has_image"),
    [
        ([human("a"), gpt("b")], False),
        ([human("<image>")], True),
        ([human("<image>"), gpt("a"), human("b"), gpt("c")], True),
        ([human("a"), gpt("<image>")], True),
    ],
)
def test_plain_wants_an_image_and_a_caption(tokenizer, conversation, has_image):
    with pytest.raises(DataError, match="'plain' wants one human turn"):
        encode(tokenizer, conversation, "plain", has_image)


def test_prompts(tokenizer):
    assert build_prompt([human("Hi")]).endswith("questions. USER: Hi ASSISTANT:")
    assert build_prompt([human("<image>")], "plain") == "<image>"
    ids = encode_prompt(tokenizer, [human("<image>\nHi")])
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(-200) == 1
    assert ids[-5:] == tokenizer("ASSISTANT:").input_ids[1:]
    with pytest.raises(DataError, match="must end with a human turn"):
        build_prompt([human("Hi"), gpt("Ho")])
    with pytest.raises(ValueError, match="unknown conversation template 'v2'; choose from plain, v1"):
        encode(tokenizer, [human("a"), gpt("b")], "v2")


def test_expand_image_tokens():
    ids = [1, -200, 5, -200]
    assert expand_image_tokens(ids, ids, 9, 3) == [1, 9, 9, 9, 5, 9, 9, 9]
    assert expand_image_tokens([-100, -100, 5, -100], ids, -100, 2) == [-100, -100, -100, 5, -100, -100]
