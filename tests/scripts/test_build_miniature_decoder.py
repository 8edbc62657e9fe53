"""The stage `decoder`: its words and rows, and what the shipped one knows."""

import dataclasses
import importlib

import numpy as np
import pytest
import torch

from helpers.paths import ROOT
from tove_lvlm.config.encoder_decoder import EncoderDecoderConfig
from tove_lvlm.lvlm.encoder_decoder import build_encoder_decoder, load_decoder
from tove_lvlm.storage import ASSETS, load_json
from tove_lvlm.world import language, maplang, scene

FOLDER = ASSETS / "miniature" / "decoder"


@pytest.fixture(scope="module")
def stage():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        return importlib.import_module("miniature.decoder")


def test_a_run_is_the_same_again_and_loads(stage, tmp_path):
    config = stage.DecoderConfig(steps=2, scenes=3, captions=2, width=32, layers=1, intermediate=32)
    small = dataclasses.replace(config, questions=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "evaluate", lambda *args, **kwargs: {})
        records = [stage.build(tmp_path / run, small) for run in "ab"]
    assert records[0]["loss_last"] == records[1]["loss_last"]
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in "ab"]
    assert weights[0] == weights[1]
    decoder, tokenizer = load_decoder(str(tmp_path / "a"))
    assert decoder.config.vocab_size == len(tokenizer)


def test_rows_are_those_of_the_base_models_processor(stage, tmp_path, tiny_tower_yaml):
    config = EncoderDecoderConfig(decoder=str(FOLDER), tower=str(tiny_tower_yaml))
    _, processor = build_encoder_decoder(config)
    texts = stage.Texts(processor.tokenizer)
    scenes = scene.sample(scene.split_seeds("heldout", 4))
    rng = np.random.default_rng(0)
    for i in range(4):
        for item in language.questions(scenes, i, rng):
            row = texts.row(i, item.text, item.answer)
            ids, labels = processor.answer_ids(processor.prompt_ids(item.text), item.answer)
            assert (row.ids, row.labels) == (ids, labels)
        said = language.captions(scenes, i, rng)
        assert texts.row(i, "", said).ids == processor.answer_ids(processor.prompt_ids(), said).input_ids
        assert processor.tokenizer.decode(texts.ids(said)) == said


def test_shipped_decoder_has_every_word_and_reads_a_map(stage):
    decoder, tokenizer = load_decoder(str(FOLDER))
    for line in language.corpus():
        assert tokenizer.unk_token_id not in tokenizer(line).input_ids
    record = load_json(FOLDER.parent / "training_record.json")["decoder"]
    assert record["parameters"] == sum(parameter.numel() for parameter in decoder.parameters())
    found = stage.evaluate(decoder.float(), stage.Texts(tokenizer), stage.DecoderConfig(), num_scenes=60)
    for family, percent in found["accuracy"].items():
        assert percent > {"count": 65, "statement": 80}.get(family, 95), family


def test_it_sees_only_what_its_cross_attention_is_given(stage):
    """With other cells the same question has another answer: nothing of a scene is in its text."""
    decoder, tokenizer = load_decoder(str(FOLDER))
    texts, config = stage.Texts(tokenizer), stage.DecoderConfig()
    scenes = scene.sample(scene.split_seeds("heldout", 30))
    seen = stage.cells(decoder.float(), texts, maplang.cells(scenes), config, None)
    rows = [texts.row(i, "How many objects are there?", str(scenes.num_objects[i])) for i in range(30)]
    with torch.no_grad():
        right, labels = stage.read(decoder, rows, seen)
        shifted, _ = stage.read(decoder, rows, seen.roll(1, 0))
    first = labels != tokenizer.eos_token_id
    assert (right.argmax(-1) == labels)[first].float().mean() > (shifted.argmax(-1) == labels)[first].float().mean()
