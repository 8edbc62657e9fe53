"""Batches: no row changes its neighbours, padding is masked, and decoding is what was asked for."""

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.tiny_lvlm import WORDS
from tove_lvlm.config import UserError
from tove_lvlm.data.errors import DataError
from tove_lvlm.inference.batching import (
    DecodingConfig,
    PixelReader,
    encode_question,
    generate_batch,
    length_sorted,
    model_inputs,
    pad_left,
)


def prompts(model, processor, lengths=(2, 5, 9)):
    rng = np.random.default_rng(1)
    rows = [encode_question(processor, model, " ".join(rng.choice(WORDS, n)), True) for n in lengths]
    read = PixelReader(processor.image_processor)
    return rows, [read(Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))) for _ in lengths]


def test_batches_are_of_similar_length_and_hold_everything_once():
    lengths = [3, 9, 3, 7, 1, 9, 4]
    batches = length_sorted(lengths, 3)
    assert batches == [[1, 5, 3], [6, 0, 2], [4]]
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert length_sorted([], 3) == []


def test_padding_is_on_the_left_and_masked():
    ids_BT, mask_BT = pad_left([[5, 6, 7], [8]], 0)
    assert ids_BT.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask_BT.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_a_batch_answers_as_each_row_alone_whatever_the_padding_holds(built):
    model, processor = built
    rows, pixels = prompts(model, processor)
    decoding = DecodingConfig(max_new_tokens=6)
    single = [generate_batch(model, processor, [r], [p], decoding)[0] for r, p in zip(rows, pixels, strict=True)]
    assert generate_batch(model, processor, rows, pixels, decoding) == single
    assert len(set(single)) > 1
    ids_BT, mask_BT = pad_left(rows, 7)
    logits = [
        model(**model_inputs(model, i, mask_BT, pixels), position_ids=(mask_BT.cumsum(1) - 1).clamp(min=0)).logits
        for i in (ids_BT, pad_left(rows, 0)[0])
    ]
    assert torch.allclose(logits[0][:, -1], logits[1][:, -1], atol=1e-5)


def test_sampling_is_seeded_and_beams_are_searched(built):
    model, processor = built
    rows, pixels = prompts(model, processor)

    def say(**settings):
        return generate_batch(model, processor, rows, pixels, DecodingConfig(max_new_tokens=6, **settings))

    assert say(temperature=1.5) == say(temperature=1.5)
    assert say(temperature=1.5) != say(temperature=1.5, seed=1)
    assert say(temperature=1e-4, seed=3) == say()
    assert len(say(num_beams=2)) == 3


@pytest.mark.parametrize(
    "settings", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"num_beams": 0}, {"top_p": 0.5}]
)
def test_decoding_that_makes_no_sense_is_refused(settings):
    name = next(iter(settings))
    with pytest.raises(UserError, match=f"`{name}`"):
        DecodingConfig(**settings)


def test_pixels_of_a_file_are_read_once(built, tmp_path):
    _, processor = built
    path = tmp_path / "a.png"
    Image.new("RGB", (20, 30), (200, 10, 10)).save(path)
    read = PixelReader(processor.image_processor)
    first = read(path)
    assert torch.equal(first, read(Image.open(path)))
    path.unlink()
    assert read(str(path)) is first
    with pytest.raises(DataError, match="cannot be read"):
        PixelReader(processor.image_processor)(path)


def test_the_camera_turns_a_photograph_only_when_asked(built, tmp_path):
    _, processor = built
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path, exif=exif)
    plain, turned = (PixelReader(processor.image_processor, apply_exif=on)(path) for on in (False, True))
    assert torch.allclose(turned, plain.rot90(-1, (1, 2)))
