"""Every format of captions, questions and statements, and what a broken entry is called."""

import json
from pathlib import Path

import pytest

from tove_lvlm.data.errors import DataError
from tove_lvlm.data.records import Records
from tove_lvlm.data.text_sources import SOURCES

COCO = {
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 7, "caption": "a red ball "},
        {"id": 2, "image_id": 8, "caption": "a box"},
        {"id": 3, "image_id": 7, "caption": "one ball"},
    ],
}
KARPATHY = {
    "images": [
        {"filepath": "train", "filename": "a.jpg", "split": "train", "sentences": [{"raw": "x"}, {"raw": "y"}]},
        {"filepath": "val", "filename": "b.jpg", "split": "restval", "sentences": [{"raw": "z"}]},
        {"filepath": "val", "filename": "c.jpg", "split": "test", "sentences": [{"raw": "never"}]},
    ]
}
GENOME = [{"id": 5, "regions": [{"region_id": 1, "image_id": 5, "phrase": "a hat"}, {"region_id": 2, "phrase": "sky"}]}]
VSR = '{"image": "a.jpg", "caption": "The cat is left of the dog.", "label": 1}\n' + json.dumps(
    {"image": "b.jpg", "caption": "The dog is on the cat.", "label": 0}
)


def load(path: Path, name: str, on_bad=None) -> list[tuple]:
    source = SOURCES[name]
    records = Records.load([path], lambda record: None, on_bad, source.convert, source.reader)
    return [
        (r.images[0].name, r.conversation[0]["value"].removeprefix("<image>\n"), r.conversation[1]["value"])
        for r in map(records.__getitem__, range(len(records)))
    ]


def written(folder: Path, name: str, content) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_coco(tmp_path):
    found = load(written(tmp_path, "captions.json", COCO), "coco")
    assert found == [("a.jpg", "", "a red ball"), ("b.jpg", "", "a box"), ("a.jpg", "", "one ball")]


def test_karpathy_takes_train_and_restval(tmp_path):
    found = load(written(tmp_path, "dataset_coco.json", KARPATHY), "karpathy")
    assert found == [("train/a.jpg", "", "x"), ("train/a.jpg", "", "y"), ("val/b.jpg", "", "z")]


@pytest.mark.parametrize("heading", ["", "caption\turl\n"])
def test_tsv(tmp_path, heading):
    path = written(tmp_path, "cc3m.tsv", heading + "a dog\tx/1.jpg\n\na cat\tx/2.jpg\tmore\r\n")
    assert load(path, "tsv") == [("x/1.jpg", "", "a dog"), ("x/2.jpg", "", "a cat")]


def test_visual_genome(tmp_path):
    found = load(written(tmp_path, "region_descriptions.json", GENOME), "visual_genome")
    assert found == [("5.jpg", "", "a hat"), ("5.jpg", "", "sky")]


def test_vsr(tmp_path):
    assert load(written(tmp_path, "train.jsonl", VSR), "vsr") == [
        ("a.jpg", "The cat is left of the dog. true or false?", "true"),
        ("b.jpg", "The dog is on the cat. true or false?", "false"),
    ]


@pytest.mark.parametrize("name", sorted({*SOURCES} - {"webdataset"}))
def test_a_file_that_is_no_text_is_named(tmp_path, name):
    (tmp_path / "file").write_bytes(b"\xff\xfe\x00broken")
    with pytest.raises(DataError, match=f"{tmp_path / 'file'}: cannot be read"):
        load(tmp_path / "file", name)
    with pytest.raises(FileNotFoundError, match="absent does not exist"):
        load(tmp_path / "absent", name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("coco", {"images": [], "annotations": [{"id": 4, "image_id": 9, "caption": "x"}]}, "a text and no image"),
        ("coco", {"images": [{"id": 9, "file_name": "a"}], "annotations": [{"id": 4, "image_id": 9}]}, "and no text"),
        ("coco", {"images": [{"id": [9], "file_name": "a"}], "annotations": [{"image_id": [9]}]}, "and no image"),
        ("coco", {"images": [{"file_name": "a"}], "annotations": [{"id": 4, "caption": "x"}]}, "a text and no image"),
        ("coco", {"images": {}}, "the list `images`"),
        ("coco", "[1]", "the list `images`"),
        ("karpathy", {"images": [{"filename": "a", "split": "train", "sentences": []}]}, "an image and no text"),
        ("coco", {"images": [3], "annotations": ["words"]}, "sample 'None': the entry has a text and no image"),
        ("karpathy", {"images": [{"filename": "a", "split": "train", "sentences": ["x"]}]}, "an image and no text"),
        ("karpathy", {"images": [{"filename": "a", "split": "train", "sentences": {"raw": "x"}}]}, "image and no text"),
        ("visual_genome", [{"id": 1, "regions": ["a hat"]}], "an image and no text"),
        ("visual_genome", ["no image"], "a text and no image"),
        ("tsv", "a\tx.jpg\nb\n", "sample 'line 2': the entry has a text and no image"),
        ("tsv", "a\tx.jpg\n \tx.jpg\n", "sample 'line 2': the entry has an image and no text"),
        ("vsr", '{"image": "a", "caption": "x", "label": 2}', "label of 0 or 1"),
    ],
)
def test_a_broken_entry_is_named(tmp_path, name, content, message):
    path = written(tmp_path, "file.jsonl" if name == "vsr" else "file", content)
    with pytest.raises(DataError, match=message) as caught:
        load(path, name)
    assert str(path) in str(caught.value)
