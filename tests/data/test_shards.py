"""webdataset's shards: the samples are webdataset's own, and whatever is wrong in one is named."""

import gzip
import io
import json
import tarfile

import pytest
import torch
import webdataset
from PIL import Image
from webdataset.tariterators import base_plus_ext

from tove_lvlm.data import shards
from tove_lvlm.data.errors import DataError
from tove_lvlm.data.records import READ_SAMPLES, Records
from tove_lvlm.data.shards import read_member, read_shard

CAPTIONS = ("a red ball", "a box", "two cats")
TALK = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]


def png(color, size=(8, 6)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "png")
    return file.getvalue()


def write(path, samples):
    """webdataset's own writer: `{__key__, jpg | png, txt | json}`."""
    with webdataset.TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write(sample)
    return path


@pytest.fixture
def shard(tmp_path):
    samples = [
        {"__key__": f"{number:05d}", "png": png((number * 80, 0, 0)), "txt": caption, "json": {"caption": "other"}}
        for number, caption in enumerate(CAPTIONS)
    ]
    return write(tmp_path / "00000.tar", samples)


def test_samples_are_those_of_webdataset(shard):
    theirs = list(webdataset.WebDataset(str(shard), shardshuffle=False, empty_check=False))
    ours = list(read_shard(shard))
    assert [sample.sample["id"] for sample in ours] == [sample["__key__"] for sample in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert read_member(shard, our.places[0]) == their["png"]
        assert our.sample["conversations"][1]["value"] == their["txt"].decode()
        assert our.sample["image"] == f"{their['__key__']}.png"


@pytest.mark.parametrize("name", ["a/b.c.jpg", "0001.JPG", "x.seg.png", ".hidden", "noext", "d.e/f.txt", "d.e/noext"])
def test_a_name_is_split_as_webdataset_does(name):
    match = shards._KEY.match(name)
    assert (match.groups() if match else (None, None)) == base_plus_ext(name)


def test_conversations_go_before_captions_and_metadata_gives_one(tmp_path):
    samples = [
        {"__key__": "talk", "jpg": png("red"), "json": {"conversations": TALK}, "txt": "no"},
        {"__key__": "meta", "jpg": png("red"), "json": {"caption": "of the metadata", "url": "http"}},
        {"__key__": "text-only", "json": {"conversations": [{"from": "human", "value": "Hi"}, TALK[1]]}},
    ]
    records = Records.load([write(tmp_path / "a.tar", samples)], lambda record: None, reader=READ_SAMPLES)
    talk, meta, text_only = map(records.__getitem__, range(3))
    assert talk.conversation == TALK
    assert meta.conversation[1]["value"] == "of the metadata"
    assert text_only.images == []
    assert list(records.has_image) == [True, True, False]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"txt": "a cat"}, "the key has no image"),
        ({"jpg": b"x"}, "the entry has an image and no text"),
        ({"jpg": b"x", "txt": "  "}, "the entry has an image and no text"),
        (
            {"jpg": b"x", "png": b"y", "txt": "a cat"},
            r"the key has a caption and 2 images \(bad.jpg, bad.png\); expected one",
        ),
        ({"jpg": b"x", "json": b"{"}, "the JSON is not valid"),
        ({"jpg": b"x", "json": b"[1]"}, "the JSON must be an object, got list"),
        ({"jpg": b"x", "txt": b"\xff\xfe\xfd"}, "the text is not UTF-8"),
        ({"cls": b"7"}, "the key has no image and no text"),
    ],
)
def test_a_sample_that_cannot_be_used_is_named(tmp_path, sample, message):
    good = {"__key__": "good", "jpg": png("red"), "txt": "a box"}
    path = write(tmp_path / "a.tar", [good, {"__key__": "bad"} | sample, good | {"__key__": "good2"}])
    with pytest.raises(DataError, match=rf"a\.tar, sample 'bad': {message}"):
        Records.load([path], lambda record: None, reader=READ_SAMPLES)
    bad = []
    records = Records.load([path], lambda record: None, bad.append, reader=READ_SAMPLES)
    assert [records[index].sample_id for index in range(len(records))] == ["good", "good2"]
    assert [error.sample_id for error in bad] == ["bad"]


def cut_points(path):
    """Inside a header, inside an image, between two files, in front of the closing blocks."""
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-3:]
    image = next(member for member in last if member.name.endswith(".png"))
    return {
        "header": image.offset + 100,
        "image": image.offset_data + image.size // 2,
        "between files": image.offset,
        "closing": max(member.offset_data + -(-member.size // 512) * 512 for member in last),
    }


@pytest.mark.parametrize("where", ["header", "image", "between files", "closing"])
def test_a_shard_that_is_cut_short_is_named_and_gives_what_is_whole(shard, where):
    content = shard.read_bytes()
    shard.write_bytes(content[: cut_points(shard)[where]])
    with pytest.raises(DataError, match=r"00000\.tar: the shard is cut short or broken"):
        Records.load([shard], lambda record: None, reader=READ_SAMPLES)
    bad = []
    records = Records.load([shard], lambda record: None, bad.append, reader=READ_SAMPLES)
    assert [records[index].sample_id for index in range(len(records))] == ["00000", "00001"]
    assert len(bad) == 1


def test_a_file_that_is_no_shard_is_named(tmp_path, shard):
    packed = tmp_path / "packed.tar"
    packed.write_bytes(gzip.compress(shard.read_bytes()))
    (tmp_path / "text.tar").write_text("no tar file" * 100)
    (tmp_path / "empty.tar").write_bytes(b"")
    for name in ("packed.tar", "text.tar", "empty.tar"):
        with pytest.raises(DataError, match=rf"{name}: not a tar file without compression"):
            list(read_shard(tmp_path / name))
    with pytest.raises(FileNotFoundError, match=r"none\.tar does not exist"):
        list(read_shard(tmp_path / "none.tar"))
    with pytest.raises(DataError, match="holds no sample"):
        Records.load([write(tmp_path / "none.tar", [])], lambda record: None, reader=READ_SAMPLES)


def test_a_shard_that_shrinks_during_a_run_is_named(shard):
    sample = next(iter(read_shard(shard)))
    shard.write_bytes(shard.read_bytes()[: sample.places[0][0] + 5])
    with pytest.raises(DataError, match="has become shorter"):
        read_member(shard, sample.places[0])
    shard.unlink()
    with pytest.raises(DataError, match="the shard cannot be read"):
        read_member(shard, sample.places[0])


def test_long_names_are_read(tmp_path):
    key = "folder/" * 30 + "image"
    path = write(tmp_path / "a.tar", [{"__key__": key, "png": png("blue"), "txt": "a blue wall"}])
    (sample,) = read_shard(path)
    assert sample.sample["id"] == key
    assert Image.open(io.BytesIO(read_member(path, sample.places[0]))).getpixel((0, 0)) == (0, 0, 255)


@pytest.fixture
def folders(tmp_path, shard):
    """The same samples as a shard and as loose files."""
    samples = []
    for found in read_shard(shard):
        (tmp_path / found.sample["image"]).write_bytes(read_member(shard, found.places[0]))
        samples.append(found.sample)
    (tmp_path / "loose.json").write_text(json.dumps(samples))
    return tmp_path


def test_a_data_set_of_shards_is_that_of_loose_files(folders, shard, image_tokenizer, processor):
    from tove_lvlm.data.dataset import ToVEDataset

    options = {"tokenizer": image_tokenizer, "image_processor": processor, "num_image_tokens": 4}
    options |= {"model_max_length": 256, "template": "plain"}
    ours = ToVEDataset([shard], **options)
    loose = ToVEDataset([folders / "loose.json"], image_folder=folders, **options)
    assert len(ours) == len(loose) == 3
    for our, their in zip(ours, loose, strict=True):
        assert our["input_ids"] == their["input_ids"]
        assert torch.equal(our["pixel_values"], their["pixel_values"])


def test_a_broken_image_in_a_shard_is_skipped(tmp_path, image_tokenizer, processor):
    from tove_lvlm.data.dataset import ToVEDataset

    samples = [{"__key__": str(n), "png": png("red") if n != 2 else b"broken", "txt": f"text {n}"} for n in range(5)]
    path = write(tmp_path / "a.tar", samples)
    options = {"tokenizer": image_tokenizer, "image_processor": processor, "num_image_tokens": 4}
    options |= {"model_max_length": 256, "template": "plain"}
    with pytest.raises(DataError, match=r"a\.tar, sample '2': image 2\.png cannot be read"):
        ToVEDataset([path], **options)[2]
    skipping = ToVEDataset([path], on_error="skip", **options)
    assert skipping[2]["sample_id"] == "3"
    assert skipping.skips.num == 1
