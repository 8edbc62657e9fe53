"""The shipped mini Vicuna: a stock tokenizer and a stock Llama that read the map language. Text only."""

import importlib

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from helpers.paths import ROOT
from tove_lvlm.data.conversations import IGNORE_INDEX, IMAGE_TOKEN_INDEX, encode, encode_prompt, encode_v1
from tove_lvlm.storage import ASSETS
from tove_lvlm.world import language, maplang, scene

FOLDER = ASSETS / "miniature" / "vicuna"
# Shares of right answers that the shipped model passes with room on 150 scenes; chance is 1/2, 1/4, 1/6 or 1/3.
BOUNDS = {"exist": 0.9, "shape": 0.95, "color": 0.95, "count": 0.65, "leftright": 0.97, "updown": 0.97, "nearfar": 0.97}
BOUNDS |= {"rel_left": 0.93, "rel_above": 0.88, "rel_nearer": 0.94}


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
    "text", ["Ünïcode ☃", "日本語 🎉👩‍👩‍👧", "tab\tand\nnewline", "two  spaces ", "a\u0000b\u200bc", "ﬁ½Å"]
)
def test_any_unicode_comes_back(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@torch.no_grad()
def _logits(model, tokenizer, prompts, maps_BNV):
    """Logits (B, T, vocabulary) of prompts in which cells of the map language stand for the image, padded on the right.

    Also the position of each prompt's last token.
    """
    words = [tokenizer(word, add_special_tokens=False).input_ids[0] for word in maplang.WORDS]
    embed = model.get_input_embeddings()
    cells_BND = torch.from_numpy(maps_BNV) @ embed.weight[words]
    rows = []
    for ids, cells_ND in zip(prompts, cells_BND, strict=True):
        at = ids.index(IMAGE_TOKEN_INDEX)
        before, after = (embed(torch.tensor(part, dtype=torch.long)) for part in (ids[:at], ids[at + 1 :]))
        rows.append(torch.cat([before, cells_ND, after]))
    inputs_BTD = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return model(inputs_embeds=inputs_BTD).logits, torch.tensor([len(row) - 1 for row in rows])


def _shares(model, tokenizer, scenes, maps_SNV):
    """Share of right one-word answers by family, one question per prompt."""
    items = [(i, q) for i in range(len(scenes)) for q in language.questions(scenes, i, np.random.default_rng(i))]
    hits = {family: [] for family in language.FAMILIES}
    for lo in range(0, len(items), 64):
        part = items[lo : lo + 64]
        prompts = [encode_prompt(tokenizer, [{"from": "human", "value": f"<image>\n{q.text}"}]) for _, q in part]
        logits, ends = _logits(model, tokenizer, prompts, maps_SNV[[i for i, _ in part]])
        guesses = logits[torch.arange(len(part)), ends].argmax(-1).tolist()
        for guess, (_, question) in zip(guesses, part, strict=True):
            hits[question.family].append(tokenizer.decode([guess]).strip() == question.answer)
    return {family: float(np.mean(found)) for family, found in hits.items()}


def test_it_reads_held_out_maps(tokenizer, model):
    scenes = scene.sample(scene.split_seeds("heldout", 150, offset=5000))
    shares = _shares(model, tokenizer, scenes, maplang.cells(scenes))
    assert {family: (shares[family], bound) for family, bound in BOUNDS.items() if shares[family] < bound} == {}


def test_with_another_scenes_map_it_only_guesses(tokenizer, model):
    """It reads the cells and not the question."""
    scenes = scene.sample(scene.split_seeds("heldout", 60, offset=5000))
    shares = _shares(model, tokenizer, scenes, np.roll(maplang.cells(scenes), 1, axis=0))
    assert np.mean([shares[family] for family in ("leftright", "updown", "nearfar", "exist")]) < 0.62, shares


def test_it_has_learnt_captions(tokenizer, model):
    """A caption is likelier under its own map than under another scene's, by far."""
    scenes = scene.sample(scene.split_seeds("heldout", 20, offset=7000))
    maps_SNV, losses = maplang.cells(scenes), []
    for shift in (0, 1):
        prompts = []
        for i in range(len(scenes)):
            caption = language.captions(scenes, i, np.random.default_rng(i))
            turns = [{"from": "human", "value": "<image>\nDescribe the scene."}, {"from": "gpt", "value": caption}]
            prompts.append(encode(tokenizer, turns, "plain").input_ids)
        logits, _ = _logits(model, tokenizer, prompts, np.roll(maps_SNV, shift, axis=0))
        targets = [torch.tensor(ids[2:]) for ids in prompts]
        losses.append(
            [
                float(cross_entropy(row[64 : 64 + len(target)], target))
                for row, target in zip(logits, targets, strict=True)
            ]
        )
    gains = np.subtract(losses[1], losses[0])
    assert gains.min() > 0.2, gains


def test_it_was_trained_on_the_prompts_that_it_meets_later(tokenizer, monkeypatch):
    """The training stage writes its prompts by itself, for speed: they are those of `data.conversations`."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
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
        expected = encode(tokenizer, turns, "plain")
        assert expected.input_ids == [*prompts.plain_prefix, IMAGE_TOKEN_INDEX, *prompts.caption(caption)[0]]
        assert expected.labels[2:] == prompts.caption(caption)[1]
