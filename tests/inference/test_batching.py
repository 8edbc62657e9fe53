"""Batches: no row changes its neighbours, padding is masked, and decoding is what was asked for."""

import numpy as np
import pytest
import torch
from PIL import Image

from tove_lvlm.config import UserError
from tove_lvlm.data.errors import DataError
from tove_lvlm.inference import batching
from tove_lvlm.inference.batching import DecodingConfig, PixelReader, length_sorted, pad_left


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


@pytest.mark.parametrize(
    "settings",
    [
        {"max_new_tokens": 0},
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"num_beams": 0},
        {"top_p": 0.5},
        {"min_new_tokens": 9, "max_new_tokens": 8},
        {"min_new_tokens": -1},
        {"length_penalty": 2.0},
    ],
)
def test_decoding_that_makes_no_sense_is_refused(settings):
    name = next(iter(settings))
    with pytest.raises(UserError, match=f"`{name}`"):
        DecodingConfig(**settings)


def test_lengths_reach_generate_and_records_where_they_are_given():
    plain = DecodingConfig(num_beams=3)
    assert plain.arguments() == {"do_sample": False, "num_beams": 3, "max_new_tokens": 64, "length_penalty": 1.0}
    assert not {"min_new_tokens", "length_penalty"} & plain.about().keys()
    given = DecodingConfig(num_beams=3, min_new_tokens=5, length_penalty=0.6)
    assert given.arguments() | {"min_new_tokens": 5, "length_penalty": 0.6} == given.arguments()
    assert given.about() | {"min_new_tokens": 5, "length_penalty": 0.6} == given.about()


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


def test_remembered_pixels_are_bounded_in_bytes(built, tmp_path, monkeypatch):
    reads, (_, processor) = [], built
    monkeypatch.setattr(batching, "read_image", lambda path, **_: reads.append(path) or Image.open(path))
    for name in "abc":
        Image.new("RGB", (20, 30), (200, 10, 10)).save(tmp_path / name, "PNG")
    one = PixelReader(processor.image_processor)(tmp_path / "a").nbytes
    read = PixelReader(processor.image_processor, remembered_bytes=2 * one)
    reads.clear()
    for name in "abacbac":
        read(tmp_path / name)
        assert sum(pixels.nbytes for pixels in read._cache.values()) == read._num_bytes <= 2 * one
    assert "".join(path.name for path in reads) == "abcbac", "the one that was not asked for longest goes"
    nothing = PixelReader(processor.image_processor, remembered_bytes=one - 1)
    assert nothing(tmp_path / "a").shape == nothing(tmp_path / "a").shape
    assert not nothing._cache


def test_the_camera_turns_a_photograph_only_when_asked(built, tmp_path):
    _, processor = built
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path, exif=exif)
    plain, turned = (PixelReader(processor.image_processor, apply_exif=on)(path) for on in (False, True))
    assert torch.allclose(turned, plain.rot90(-1, (1, 2)))
