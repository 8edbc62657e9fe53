"""The shipped mini Vicuna: a stock tokenizer and a stock Llama that read the map language. Text only."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tove_lvlm.data.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from tove_lvlm.data.conversations import encode_plain, encode_prompt, encode_v1
from tove_lvlm.storage import ASSETS
from tove_lvlm.world import language, maplang, scene

FOLDER = ASSETS / "miniature" / "vicuna"
# Shares of right answers that the shipped model passes with room on 150 scenes; chance is 1/2, 1/4, 1/6 or 1/3.
BOUNDS = {"exist": 0.88, "shape": 0.9, "color": 0.85, "count": 0.8, "leftright": 0.93, "updown": 0.93, "nearfar": 0.92}
BOUNDS |= {"rel_left": 0.88, "rel_above": 0.88, "rel_nearer": 0.88}


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


def test_the_folder_is_an_ordinary_small_llama(tokenizer, model):
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.config.vocab_size == len(tokenizer) <= 640
    assert sum(p.numel() for p in model.parameters()) < 1.2e6
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3e6
    assert (FOLDER / "tokenizer.model").is_file()
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert "<image>" not in tokenizer.get_vocab()


def test_sentencepiece_and_transformers_cut_alike(tokenizer):
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / "tokenizer.model"))
    for text in [*language.corpus(), "USER: Hello, wörld! 1234 cones ASSISTANT: 日本 🎉", "A quick brown fox?"]:
        assert tokenizer(text).input_ids == [1, *processor.encode(text)], text


def test_every_word_is_one_piece(tokenizer):
    answers = {"yes", "no", "2", "3", "4", "left", "right", "top", "bottom", "near", "far"}
    for word in {*maplang.WORDS, *answers, "halfway", "center", "middle", "USER:", "ASSISTANT:"}:
        assert len(tokenizer(word, add_special_tokens=False).input_ids) == 1, word
    for sentence in language.corpus():
        words = sentence.replace("?", " ?").replace(",", " ,").replace(".", " .").split()
        assert len(tokenizer(sentence, add_special_tokens=False).input_ids) == len(words), sentence


def test_words_stay_whole_in_the_templates(tokenizer):
    """The first turn starts after the image and a line break, later ones after </s>: no word is cut in either."""
    messages = [{"from": "human", "value": "<image>\nIs the red object near or far?"}]
    ids = encode_prompt(tokenizer, messages)
    at = ids.index(IMAGE_TOKEN_INDEX)
    assert at <= 33, "the system prompt costs one token per word"
    after = tokenizer.convert_ids_to_tokens(ids[at + 1 :])
    assert after[-9:] == "Is ▁the ▁red ▁object ▁near ▁or ▁far ? ▁ASSISTANT:".split()
    messages += [{"from": "gpt", "value": "near"}, {"from": "human", "value": "Which is nearer, red or blue?"}]
    tail = tokenizer.convert_ids_to_tokens(encode_prompt(tokenizer, messages)[len(ids) :])
    assert tail == "▁near </s> USER: ▁Which ▁is ▁nearer , ▁red ▁or ▁blue ? ▁ASSISTANT:".split()


@pytest.mark.parametrize(
    "text", ["Ünïcode ☃", "日本語 🎉👩‍👩‍👧", "tab\tand\nnewline", "  two  spaces ", "a\u0000b\u200bc", "ﬁ½Å"]
)
def test_any_unicode_comes_back(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@torch.no_grad()
def _logits(model, ids, weight_NV, map_ids):
    """Next-token logits after a prompt in which the cells stand for the image: (T, vocabulary)."""
    embed = model.get_input_embeddings()
    at = ids.index(IMAGE_TOKEN_INDEX)
    cells_ND = torch.from_numpy(weight_NV) @ embed.weight[map_ids]
    parts = [embed(torch.tensor(ids[:at])), cells_ND, embed(torch.tensor(ids[at + 1 :], dtype=torch.long))]
    return model(inputs_embeds=torch.cat(parts)[None]).logits[0]


@pytest.fixture(scope="module")
def map_ids(tokenizer):
    return [tokenizer(word, add_special_tokens=False).input_ids[0] for word in maplang.WORDS]


def test_it_reads_held_out_maps(tokenizer, model, map_ids):
    scenes = scene.sample(scene.split_seeds("heldout", 150, offset=5000))
    weight_SNV = maplang.cells(scenes)
    hits = {family: [] for family in language.FAMILIES}
    blind = {family: [] for family in language.FAMILIES}
    for i in range(len(scenes)):
        for family, text, answer in language.questions(scenes, i, np.random.default_rng(i)):
            ids = encode_prompt(tokenizer, [{"from": "human", "value": f"<image>\n{text}"}])
            for found, weight_NV in ((hits, weight_SNV[i]), (blind, weight_SNV[i - 1])):
                guess = int(_logits(model, ids, weight_NV, map_ids)[-1].argmax())
                found[family].append(tokenizer.decode([guess]).strip() == answer)
    shares = {family: float(np.mean(found)) for family, found in hits.items()}
    assert all(shares[family] >= bound for family, bound in BOUNDS.items()), shares
    # with another scene's map the answers are guesses: it reads the cells and not the question
    assert np.mean([np.mean(blind[family]) for family in ("leftright", "updown", "nearfar", "exist")]) < 0.6


def test_it_has_learnt_captions(tokenizer, model, map_ids):
    """A caption is likelier under its own map than under another scene's, by far."""
    scenes = scene.sample(scene.split_seeds("heldout", 20, offset=7000))
    weight_SNV = maplang.cells(scenes)
    gains = []
    for i in range(len(scenes)):
        caption = language.captions(scenes, i, np.random.default_rng(i))
        turns = [{"from": "human", "value": "<image>\nDescribe the scene."}, {"from": "gpt", "value": caption}]
        ids = encode_plain(tokenizer, turns).input_ids
        target = torch.tensor(ids[ids.index(IMAGE_TOKEN_INDEX) + 1 :])
        own, other = (
            cross_entropy(_logits(model, ids, weight_SNV[k], map_ids)[64 : 64 + len(target)], target)
            for k in (i, i - 1)
        )
        gains.append(float(other - own))
    assert min(gains) > 0.2, gains


def test_it_was_trained_on_the_prompts_that_it_meets_later(tokenizer, monkeypatch):
    """The training stage writes its prompts by itself, for speed: they are those of `data.conversations`."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "scripts"))
    prompts = importlib.import_module("miniature.vicuna").Prompts(tokenizer)
    scenes = scene.sample(scene.split_seeds("train", 5))
    for i in range(len(scenes)):
        asked = language.questions(scenes, i, np.random.default_rng(i))
        turns = [{"from": who, "value": text} for q in asked for who, text in (("human", q.text), ("gpt", q.answer))]
        turns[0]["value"] = f"<image>\n{turns[0]['value']}"
        ids, labels = prompts.conversation(asked)
        expected = encode_v1(tokenizer, turns)
        assert expected.input_ids == [*prompts.v1_prefix, IMAGE_TOKEN_INDEX, *ids]
        assert expected.labels[-len(labels) :] == labels
        assert set(expected.labels[: -len(labels)]) == {IGNORE_INDEX}
        caption = language.captions(scenes, i, np.random.default_rng(i))
        turns = [{"from": "human", "value": "<image>\nDescribe the scene."}, {"from": "gpt", "value": caption}]
        expected = encode_plain(tokenizer, turns)
        assert expected.input_ids == [*prompts.plain_prefix, IMAGE_TOKEN_INDEX, *prompts.caption(caption)[0]]
        assert expected.labels[2:] == prompts.caption(caption)[1]
