"""Reading what a model is measured on."""

import json

import pytest

from tove_lvlm.config import UserError
from tove_lvlm.data.errors import DataError
from tove_lvlm.surgery.probe_data import read_probe_data

TURNS = [{"from": "human", "value": "<image>\nwhat ?"}, {"from": "gpt", "value": "red"}]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path


def _write(folder, rows, name="data.json"):
    text = json.dumps(rows) if name.endswith(".json") else "\n".join(map(json.dumps, rows))
    (folder / name).write_text(text)
    return folder / name


def test_questions_become_conversations_grouped_by_image(folder):
    row = {"image": "a.png", "text": "which ?", "answer": "no"}
    file = _write(folder, [row, row | {"image": "b.png", "answer": 3}, row | {"text": "why ?"}], "q.jsonl")
    data = read_probe_data(data=file)
    assert data.image_folder == folder / "images"
    assert data.images == ["a.png", "b.png"]
    assert data.samples == [[0, 2], [1]]
    assert data.records[1].conversation == [
        {"from": "human", "value": "<image>\nwhich ?"},
        {"from": "gpt", "value": "3"},
    ]
    assert read_probe_data(data=file, limit=2).samples == [[0], [1]]


def test_conversations_without_an_image_are_counted(folder):
    bare = [{"from": "human", "value": "what ?"}, {"from": "gpt", "value": "red"}]
    file = _write(folder, [{"image": "a.png", "conversations": TURNS}, {"conversations": bare}])
    data = read_probe_data(data=file)
    assert (data.images, data.num_text_only) == (["a.png"], 1)
    with pytest.raises(DataError, match="no sample with an image"):
        read_probe_data(data=_write(folder, [{"conversations": bare}]))


def test_bad_samples_are_kept_apart_until_they_are_too_many(folder):
    good = {"image": "a.png", "conversations": TURNS}
    bad = [{"id": "x", "image": "a.png", "conversations": []}, {"id": "y", "image": "a.png", "text": "no answer"}]
    data = read_probe_data(data=_write(folder, [good, *bad]))
    assert set(data.bad) == {"sample x", "sample y"}
    assert len(data.records) == 1
    many = [bad[0] | {"id": str(number)} for number in range(6)]
    with pytest.raises(DataError, match="6 broken samples or images, over the 5 allowed"):
        read_probe_data(data=_write(folder, [good, *many]))


def test_a_folder_is_searched_through(folder):
    (folder / "images" / "deep").mkdir()
    for name in ("b.JPG", "a.png", "deep/c.webp", "notes.txt"):
        (folder / "images" / name).write_bytes(b"x")
    assert read_probe_data(images=folder / "images").images == ["a.png", "b.JPG", "deep/c.webp"]
    assert read_probe_data(images=folder / "images", limit=2).images == ["a.png", "b.JPG"]


def test_the_fingerprint_knows_texts_and_images(folder):
    (folder / "images" / "a.png").write_bytes(b"x")
    file = _write(folder, [{"image": "a.png", "conversations": TURNS}])
    first = read_probe_data(data=file).fingerprint()
    assert read_probe_data(data=file).fingerprint() == first
    (folder / "images" / "a.png").write_bytes(b"xy")
    second = read_probe_data(data=file).fingerprint()
    other = [TURNS[0], {"from": "gpt", "value": "blue"}]
    third = read_probe_data(data=_write(folder, [{"image": "a.png", "conversations": other}])).fingerprint()
    (folder / "images" / "a.png").unlink()
    fourth = read_probe_data(data=file).fingerprint()
    assert len({first, second, third, fourth}) == 4


def test_a_file_with_one_bad_end_is_named(folder):
    (folder / "data.json").write_text("[{")
    with pytest.raises(UserError, match=r"data\.json: not valid JSON"):
        read_probe_data(data=folder / "data.json")
    with pytest.raises(UserError, match="the limit is 0"):
        read_probe_data(images=folder, limit=0)
