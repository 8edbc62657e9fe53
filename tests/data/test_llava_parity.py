"""Ids, labels, pixels and lengths against the real functions of LLaVA."""

import random
from types import SimpleNamespace

import pytest
import torch

from helpers import llava_reference
from tove_lvlm.data.conversations import build_prompt, encode, encode_prompt, encode_v1
from tove_lvlm.data.dataset import ToVEDataset

SEED_TEXTS = [
    "What is in the picture?",
    "A red cat, sitting on the mat.",
    " leading space",
    "trailing space ",
    "   many   inner    spaces   ",
    "\ttab\tand\t\ttabs",
    "\nline\n\nbreaks\n",
    "\r\nwindows\r\n",
    "no\u00a0break\u2009thin\u3000wide",
    "zero\u200bwidth\ufeffmark",
    "\u2028separator\u2029",
    " ",
    "\n",
    ".",
    "0",
    "3.14159 + 1e-10 = ?",
    "h\u00e9llo, na\u00efve \u00c5ngstr\u00f6m",
    "combining e\u0301 a\u0308",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",
    "\u2581lower\u2581one\u2581eighth",
    "USER: not a role",
    "ASSISTANT:nor this one",
    "assistant: nor this",
    "<s> <pad> <im_start> <image <img>",
    "[INST] other [/INST] ### Human:",
    "def f(x):\n    return {'a': [x, 1]}\n",
    "\\frac{a}{b} $x^2$ & \x07 bell",
    "verylongword" * 30,
]


def human(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


def random_conversation(rng, with_image):
    """Turns that LLaVA masks rightly: no empty texts, no end tokens, an answer to every question."""
    num_rounds = rng.randint(1, 5)
    turns = []
    for _ in range(num_rounds):
        turns.append(human(" ".join(rng.sample(SEED_TEXTS, rng.randint(1, 3)))))
        turns.append(gpt("".join(rng.sample(SEED_TEXTS, rng.randint(1, 3)))))
    if with_image:
        turn = turns[2 * rng.randrange(num_rounds)]
        turn["value"] = rng.choice(
            ["<image>\n{}", "{}\n<image>", "{}<image>", "<image>{}", "<image> <image>{}"]
        ).format(turn["value"])
    if rng.random() < 0.2:
        turns.insert(0, gpt(rng.choice(SEED_TEXTS)))
    return turns


def test_assistant_has_the_ids_of_llama_2(tokenizer):
    assert tokenizer("ASSISTANT:").input_ids == [1, 319, 1799, 9047, 13566, 29901]


@pytest.mark.parametrize("with_image", [True, False])
def test_v1_equals_llava_on_random_conversations(llava, tokenizer, with_image):
    rng = random.Random(int(with_image))
    for _ in range(300):
        conversation = random_conversation(rng, with_image)
        expected = llava_reference.encode(llava, tokenizer, conversation, "v1", with_image)
        assert any(label != -100 for label in expected[1]), "LLaVA masked the sample: the generator is at fault"
        assert encode_v1(tokenizer, conversation, with_image) == expected, conversation


@pytest.mark.parametrize("text", SEED_TEXTS)
def test_each_text_as_question_and_answer(llava, tokenizer, text):
    conversation = [human(text + "\n<image>"), gpt("first"), human("second?"), gpt(text), human(text), gpt("third")]
    expected = llava_reference.encode(llava, tokenizer, conversation, "v1", True)
    assert encode_v1(tokenizer, conversation) == expected
    assert expected[0].count(-200) == 1
    assert sum(label == tokenizer.eos_token_id for label in expected[1]) == 3


def test_plain_equals_llava(llava, tokenizer):
    rng = random.Random(2)
    captions = SEED_TEXTS + ["".join(rng.sample(SEED_TEXTS, 3)) for _ in range(200)] + ["", "</s>", "a</s>b", "<unk>"]
    for caption in captions:
        conversation = [human(rng.choice(["<image>", "Describe it.\n<image>", "<image>\nWhat?"])), gpt(caption)]
        expected = llava_reference.encode(llava, tokenizer, conversation, "plain", True)
        assert encode(tokenizer, conversation, "plain") == expected, caption
        # LLaVA masks BOS and the image, and learns the rest.
        assert expected[1][:2] == [-100, -100]
        assert expected[1][2:] == expected[0][2:]


WRONG = {
    # LLaVA's prompt leaves out the separator after an empty turn, and its count ends there.
    "empty last answer": ([human("hi"), gpt("one"), human("more"), gpt("")], ["one</s>"]),
    "empty question": ([human("hi"), gpt("one"), human(""), gpt("two")], ["one</s>", "two</s>"]),
    # A round without an answer does not split in two, and LLaVA stops counting.
    "unanswered question": ([human("hi"), gpt("one"), human("more")], ["one</s>"]),
    # The user quotes the answer's mark; LLaVA splits there.
    "mark in question": ([human("what is ASSISTANT: x"), gpt("one"), human("ok"), gpt("two")], ["one</s>", "two</s>"]),
    # LLaVA rounds end at every </s>, also at one that was written by the user.
    "end token in question": (
        [human("what is </s> there"), gpt("one"), human("ok"), gpt("two")],
        ["one</s>", "two</s>"],
    ),
    "end token in answer": (
        [human("which?"), gpt("the </s> token"), human("ok"), gpt("two")],
        ["the</s> token</s>", "two</s>"],
    ),
    # <unk> is LLaVA's padding token, and it counts the length by what is not padding.
    "unk in question": ([human("what is <unk>"), gpt("one")], ["one</s>"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_where_llava_masks_a_whole_sample_ours_keeps_the_answers(llava, tokenizer, case):
    conversation, answers = WRONG[case]
    ids, labels = llava_reference.encode(llava, tokenizer, conversation, "v1", False)
    assert set(labels) == {-100}, "LLaVA no longer fails here"
    ours = encode_v1(tokenizer, conversation)
    assert ours.input_ids == ids
    learned = tokenizer.decode([label for label in ours.labels if label != -100])
    assert learned.replace(" ", "") == "".join(answers).replace(" ", "")


def test_where_llava_learns_the_users_words_ours_does_not(llava, tokenizer):
    conversation = [human("repeat ASSISTANT:"), gpt("one")]
    ids, labels = llava_reference.encode(llava, tokenizer, conversation, "v1", False)
    assert "ASSISTANT" in tokenizer.decode([label for label in labels if label != -100])
    ours = encode_v1(tokenizer, conversation)
    assert ours.input_ids == ids
    assert tokenizer.decode([label for label in ours.labels if label != -100]).strip() == "one</s>"


def test_without_bos_llava_masks_every_second_round_and_ours_does_not(llava):
    """transformers 5 adds BOS only where the tokenizer's configuration says so; LLaVA counts on it."""
    tokenizer = llava_reference.current_tokenizer(add_bos=False)
    conversation = [human("<image>\nhi"), gpt("one"), human("more"), gpt("two")]
    ids, labels = llava_reference.encode(llava, tokenizer, conversation, "v1", True)
    assert set(labels) == {-100}
    ours = encode_v1(tokenizer, conversation)
    assert ours.input_ids == ids
    assert tokenizer.decode([label for label in ours.labels if label != -100]).split() == ["one</s>", "two</s>"]
    with_bos = encode_v1(llava_reference.current_tokenizer(), conversation)
    assert [label for label in with_bos.labels if label != -100] == [label for label in ours.labels if label != -100]


def test_prompt_equals_llavas(llava, tokenizer):
    turns = [human("<image>\nWhat is it?"), gpt("A cat."), human("Sure?")]
    conv = llava.conversation.conv_templates["v1"].copy()
    for turn, role in zip([*turns, None], conv.roles * 2, strict=True):
        conv.append_message(role, turn and turn["value"])
    assert build_prompt(turns) == conv.get_prompt()
    expected = llava.mm_utils.tokenizer_image_token(conv.get_prompt(), tokenizer)
    assert encode_prompt(tokenizer, turns) == expected
    # What a model is asked is what it was trained on, up to the answer.
    trained = encode_v1(tokenizer, [*turns, gpt("Yes.")])
    assert trained.input_ids[: len(expected)] == expected
    assert trained.labels[len(expected)] != -100


@pytest.mark.parametrize("aspect_ratio", ["square", "pad"])
@pytest.mark.parametrize("template", ["v1", "plain"])
def test_dataset_equals_llavas(llava, image_tokenizer, processor, make_data, aspect_ratio, template):
    sizes = [(30, 20), (20, 30), (16, 16), (9, 40)]
    samples = [
        {"id": str(i), "image": f"{i}.png", "conversations": [human(f"{SEED_TEXTS[i]}\n<image>"), gpt(SEED_TEXTS[-i])]}
        for i in range(len(sizes))
    ]
    if template == "v1":
        samples.append({"id": "text", "conversations": [human("a b c"), gpt("d e")]})
    file, folder = make_data(samples, images=[(f"{i}.png", size) for i, size in enumerate(sizes)])
    flags = SimpleNamespace(
        image_folder=str(folder),
        image_processor=processor,
        image_aspect_ratio=aspect_ratio,
        is_multimodal=True,
        mm_use_im_start_end=False,
    )
    # LLaVA has no <image> in its vocabulary.
    tokenizer = llava_reference.current_tokenizer()
    before = llava.conversation.default_conversation
    llava.conversation.default_conversation = llava.conversation.conv_templates[template]
    try:
        theirs = llava.train.LazySupervisedDataset(str(file), tokenizer, flags)
        expected = [theirs[i] for i in range(len(samples))]
    finally:
        llava.conversation.default_conversation = before
    ours = ToVEDataset(
        file,
        tokenizer=image_tokenizer,
        image_processor=processor,
        num_image_tokens=4,
        model_max_length=2048,
        template=template,
        image_folder=folder,
        image_aspect_ratio=aspect_ratio,
    )
    assert ours.lengths.tolist() == theirs.lengths
    assert ours.modality_lengths.tolist() == theirs.modality_lengths
    for index, (sample, reference) in enumerate(zip(ours, expected, strict=True)):
        assert sample["input_ids"] == reference["input_ids"].tolist()
        assert sample["labels"] == reference["labels"].tolist()
        if "image" in samples[index]:
            assert torch.equal(sample["pixel_values"], reference["image"][None])
        else:
            assert sample["pixel_values"] is None
            assert not reference["image"].any()


def test_truncation_equals_llavas(llava):
    """LLaVA cuts a text at the tokenizer and a text with an image at the collator; ours cuts both at the collator."""
    tokenizer = llava_reference.current_tokenizer(max_length=60)
    conversation = [human("hi"), gpt("a long answer " * 10), human("and"), gpt("never seen")]
    for with_image in (False, True):
        turns = [human("<image>\nhi"), *conversation[1:]] if with_image else conversation
        ids, labels = llava_reference.encode(llava, tokenizer, turns, "v1", with_image)
        ours = encode(tokenizer, turns, "v1")
        assert (ours.input_ids[:60], ours.labels[:60]) == (ids[:60], labels[:60])
        assert any(label != -100 for label in labels[:60])
        assert len(ours.input_ids) > 60
