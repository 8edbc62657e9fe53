"""Conversations in the words of real models' chat templates: texts, answers, ends, and templates that will not do."""

import gc
import weakref

import pytest
from jinja2 import TemplateError

from helpers.chat_tokenizers import make_tokenizer, shipped_templates
from tove_lvlm.config import ConfigError
from tove_lvlm.data.chat_template import ChatTemplate
from tove_lvlm.data.conversations import (
    CHAT,
    IGNORE_INDEX,
    IMAGE_TOKEN_INDEX,
    V1,
    encode,
    encode_prompt,
    end_ids,
    template_of,
)
from tove_lvlm.data.errors import DataError
from tove_lvlm.data.turns import IMAGE_TOKEN, read_turns
from tove_lvlm.lvlm.processor import take_images

ENDS = {
    "llama3": "<|eot_id|>",
    "llama3_1": "<|eot_id|>",
    "qwen2_5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "qwen3_instruct_2507": "<|im_end|>",
    "gemma": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "phi3": "<|end|>",
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "smolvlm": "<end_of_utterance>",
    "mistral": "<eos>",
    "completion": "<eos>",
}
"""Templates, and the token that ends an answer in each."""
THINKING = {"qwen3"}
"""Those that write an empty thinking block before the last answer alone, and before no other."""
TALK = [
    {"from": "human", "value": "What is it?\n<image>"},
    {"from": "gpt", "value": "A cat, élégant \U0001f600."},
    {"from": "human", "value": "Why?  2 < 3 "},
    {"from": "gpt", "value": "It\n\npurrs."},
]
MESSAGES = [
    {"role": "user", "content": "<image>\nWhat is it?"},
    {"role": "assistant", "content": TALK[1]["value"]},
    {"role": "user", "content": TALK[2]["value"]},
    {"role": "assistant", "content": TALK[3]["value"]},
]


@pytest.fixture
def tokenizer(request):
    made = make_tokenizer(request.param)
    take_images(made)
    return made


every_template = pytest.mark.parametrize("tokenizer", ENDS, indirect=True)


def text_of(tokenizer, ids) -> str:
    image = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    return tokenizer.decode([image if token == IMAGE_TOKEN_INDEX else token for token in ids])


def answers_of(tokenizer, encoded) -> list[str]:
    """The runs of labels, as texts."""
    runs, run = [], []
    for label in [*encoded.labels, IGNORE_INDEX]:
        if label != IGNORE_INDEX:
            run.append(label)
        elif run:
            runs.append(tokenizer.decode(run))
            run = []
    return runs


@every_template
def test_conversation_and_prompt_are_the_templates_own(tokenizer, request):
    name = request.node.callspec.params["tokenizer"]
    assert template_of(tokenizer) == CHAT
    last = TALK[2:]
    for talk, messages in ((TALK, MESSAGES), (last, MESSAGES[2:])):
        if name in THINKING and len(talk) > 2:
            continue
        assert text_of(tokenizer, encode(tokenizer, talk, CHAT).input_ids) == tokenizer.apply_chat_template(
            messages, tokenize=False
        )
        prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        assert text_of(tokenizer, encode_prompt(tokenizer, talk[:-1], CHAT)) == prompt


@every_template
def test_answers_and_their_ends_are_learnt(tokenizer, request):
    end = ENDS[request.node.callspec.params["tokenizer"]]
    encoded = encode(tokenizer, TALK, CHAT, 1)
    assert [answer.strip() for answer in answers_of(tokenizer, encoded)] == [
        f"{turn['value']}{end}" for turn in TALK[1::2]
    ]
    assert all(label in (token, IGNORE_INDEX) for token, label in zip(*encoded, strict=True))
    assert encoded.input_ids.count(IMAGE_TOKEN_INDEX) == 1
    assert tokenizer.convert_ids_to_tokens(end_ids(tokenizer))[0] == end
    assert tokenizer.eos_token_id in end_ids(tokenizer)


@every_template
def test_tokens_are_those_of_the_pieces(tokenizer):
    """What the model is asked with, token for token, then the answer: nothing merges across its beginning."""
    encoded = encode(tokenizer, TALK, CHAT, 1)
    for last in (1, 3):
        prompt = encode_prompt(tokenizer, TALK[:last], CHAT)
        assert encoded.input_ids[: len(prompt)] == prompt
        assert encoded.labels[len(prompt)] == encoded.input_ids[len(prompt)]
        assert encoded.labels[len(prompt) - 1] == IGNORE_INDEX


@pytest.mark.parametrize("name", ["llama3", "qwen2_5", "qwen3", "gemma3"])
def test_generation_blocks_are_what_transformers_masks(name):
    tokenizer = make_tokenizer(f"{name}_training")
    take_images(tokenizer)
    encoded = encode(tokenizer, TALK, CHAT, 1)
    expected = tokenizer.apply_chat_template(
        MESSAGES, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    learnt = [int(label != IGNORE_INDEX) for label in encoded.labels]
    mask = expected["assistant_masks"]
    # A block may begin within the generation prompt: at a line's end (Qwen2.5), with the thinking block (Qwen3).
    for last in (1, 3):
        place = len(encode_prompt(tokenizer, TALK[:last], CHAT))
        while mask[place := place - 1]:
            mask[place] = 0
    assert learnt == mask


@pytest.mark.parametrize("name", ["qwen3", "qwen3_training"])
def test_a_thinking_template_has_its_empty_block_before_every_answer(name):
    tokenizer = make_tokenizer(name)
    take_images(tokenizer)
    said = text_of(tokenizer, encode(tokenizer, TALK, CHAT, 1).input_ids)
    assert said.count("<|im_start|>assistant\n<think>\n\n</think>\n\n") == 2
    asked = tokenizer.apply_chat_template(MESSAGES[:1], tokenize=False, add_generation_prompt=True)
    assert asked.endswith("</think>\n\n"), "stock tools ask as it is trained"
    thinking = tokenizer.apply_chat_template(
        MESSAGES[:1], tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    assert thinking.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("tokenizer", ["qwen2_5", "llama3", "smolvlm"], indirect=True)
def test_images_as_parts_of_messages_say_the_same(tokenizer, request):
    parts = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    expected = tokenizer.apply_chat_template(MESSAGES[:1], tokenize=False, add_generation_prompt=True)
    of_parts = request.node.callspec.params["tokenizer"] == "smolvlm"  # has its own places for them
    for content in (parts, parts if of_parts else parts[::-1]):
        message = {"role": "user", "content": content}
        assert tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True) == expected
    two = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Same?"}]
    said = tokenizer.apply_chat_template([{"role": "user", "content": two}], tokenize=False)
    assert said.count(IMAGE_TOKEN) == 2


@pytest.mark.parametrize("tokenizer", ["qwen2_5", "llama3", "mistral"], indirect=True)
def test_several_images_stay_in_their_places(tokenizer):
    talk = [{"from": "human", "value": "<image>\n<image> Same as <image>?"}, {"from": "gpt", "value": "No."}]
    encoded = encode(tokenizer, talk, CHAT, 3)
    assert encoded.input_ids.count(IMAGE_TOKEN_INDEX) == 3
    assert "<image>\n<image> Same as <image>?" in text_of(tokenizer, encoded.input_ids)
    with pytest.raises(DataError, match="has 2 images but its text has 3 times <image>"):
        encode(tokenizer, talk, CHAT, 2)


def test_system_turns_are_the_templates_or_refused():
    system = {"from": "system", "value": "Be brief."}
    for name in ("qwen2_5", "llama3"):
        tokenizer = make_tokenizer(name)
        said = text_of(tokenizer, encode(tokenizer, [system, *TALK], CHAT, 1).input_ids)
        assert "Be brief." in said
        assert said == tokenizer.apply_chat_template(
            [{"role": "system", "content": "Be brief."}, *MESSAGES], tokenize=False
        )
    with pytest.raises(DataError, match="does not take such a conversation: System role not supported"):
        encode(make_tokenizer("gemma"), [system, *TALK], CHAT, 1)


@pytest.mark.parametrize("tokenizer", ["qwen3"], indirect=True)
def test_a_text_that_looks_like_a_turn_changes_no_span(tokenizer):
    talk = [{"from": "human", "value": "A cat."}, {"from": "gpt", "value": "A cat."}]
    encoded = encode(tokenizer, talk, CHAT)
    assert answers_of(tokenizer, encoded) == ["A cat.<|im_end|>"]
    empty = encode(tokenizer, [*talk, {"from": "human", "value": ""}, {"from": "gpt", "value": ""}], CHAT)
    assert answers_of(tokenizer, empty) == ["A cat.<|im_end|>"]


@pytest.mark.parametrize("tokenizer", ["qwen2_5", "completion", "mistral"], indirect=True)
def test_a_token_never_reaches_over_the_beginning_of_an_answer(tokenizer):
    """Where the prompt ends with a blank, or the answer begins with an empty line."""
    words = tokenizer.tokenize("is red")
    assert words[-1].endswith("red")
    assert len(words) == 2, "a word is one token with the blank before it"
    for answer in ("red box", "\n\nred", " red", "\tred"):
        talk = [{"from": "human", "value": "is"}, {"from": "gpt", "value": answer}]
        encoded, prompt = encode(tokenizer, talk, CHAT), encode_prompt(tokenizer, talk[:1], CHAT)
        assert encoded.input_ids[: len(prompt)] == prompt
        assert answers_of(tokenizer, encoded)[0].strip().startswith("red")


def test_shapes_are_asked_of_the_template_once(monkeypatch):
    tokenizer = make_tokenizer("qwen3")
    chat = ChatTemplate.of(tokenizer)
    chat.render(read_turns(TALK, 1))
    monkeypatch.setattr(chat, "_say", None)
    other = [{**turn, "value": turn["value"].replace("cat", "dog").replace("it", "that")} for turn in TALK]
    said, answers = chat.render(read_turns(other, 1))
    monkeypatch.undo()
    for number in range(5):
        chat.render(read_turns([{"from": "system", "value": f"Rule {number}."}, *TALK], 1))
    assert len(chat._shapes) == 2, "with and without a system turn, whatever it says"
    assert said[slice(*answers[0])] == "A dog, élégant \U0001f600.<|im_end|>"
    assert ChatTemplate.of(tokenizer) is chat
    tokenizer.chat_template += " "
    assert ChatTemplate.of(tokenizer) is not chat


def test_a_tokenizer_is_let_go_with_its_template():
    tokenizer = make_tokenizer("qwen3")
    ChatTemplate.of(tokenizer)
    gone = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("hello", r"does not say questions and their answers once each; it says 'hello'"),
        ("{{ messages[0]['content'] }}", "does not say questions and their answers once each"),
        ("{% for m in messages %}{{ m['content'] }} {% endfor %}", "no token of its own: the model would never learn"),
        ("{{ raise_exception('no chats here') }}", "cannot say a question and its answer: no chats here"),
        ("{% for %}", "cannot say a question and its answer"),
        (
            "{% for m in messages %}{{ m['content'] + '<eos>' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<think>\\n' }}{% endif %}",
            "begins answers with `<think>`, and the answers of the data do not think",
        ),
    ],
)
def test_templates_that_cannot_be_trained_with_are_refused(template, message):
    tokenizer = make_tokenizer("completion")
    tokenizer.chat_template = template
    assert template_of(tokenizer) == CHAT
    with pytest.raises(ConfigError, match=message):
        take_images(tokenizer)
    assert tokenizer.chat_template == template


def test_v1_is_what_has_no_template_or_vicunas_roles(llm):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llm)
    assert template_of(tokenizer) == V1
    # As llava-hf's models have it.
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'].upper() + ': ' + message['content'] + ' ' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )
    assert template_of(tokenizer) == V1
    assert end_ids(tokenizer) == [tokenizer.eos_token_id]


@pytest.mark.full
@pytest.mark.parametrize("name", shipped_templates())
def test_every_shipped_template_is_its_own_text_or_refused(name):
    tokenizer = make_tokenizer(name)
    try:
        take_images(tokenizer)
    except ConfigError:
        assert name.startswith(("deepseek", "glm4moe")), "they think, or end no answer"
        return
    talk, messages = TALK[2:], MESSAGES[2:]
    try:
        expected = tokenizer.apply_chat_template(messages, tokenize=False)
    except TemplateError:
        return
    encoded = encode(tokenizer, talk, CHAT)
    assert text_of(tokenizer, encoded.input_ids) == expected
    (answer,) = answers_of(tokenizer, encoded)
    assert TALK[3]["value"] in answer
    assert set(end_ids(tokenizer)) & {label for label in encoded.labels if label != IGNORE_INDEX}
