"""Images of merging: folders and JSON files, what cannot be read."""

import json
import shutil

import pytest
import torch

from helpers import tiny_towers
from helpers.pictures import paint
from tove_lvlm.config import ConfigError
from tove_lvlm.data.errors import DataError
from tove_lvlm.recipes.merge.images import ImageDataset


def test_folders_are_read_with_all_below_and_json_files_by_their_images(tmp_path, processor):
    for index, name in enumerate(["b.png", "a/x.JPG", "a/deep/y.webp", "a/z.jpeg"]):
        paint(tmp_path / "images" / name, index)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    rows = [{"id": str(i), "image": name} for i, name in enumerate(["b.png", "a/x.JPG", "b.png"])] + [{"id": "text"}]
    talk = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]
    (tmp_path / "data.json").write_text(json.dumps([row | {"conversations": talk} for row in rows]))
    folder = ImageDataset([tmp_path / "images"], processor)
    found = [name.removeprefix(f"{tmp_path}/images/") for name in folder.names]
    assert found == ["a/deep/y.webp", "a/x.JPG", "a/z.jpeg", "b.png"]
    listed = ImageDataset([tmp_path / "data.json"], processor, image_folder=tmp_path / "images")
    assert listed.names == ["b.png", "a/x.JPG"]
    assert torch.equal(listed[0][0], folder[3][0])
    assert folder[3][0].shape == (3, tiny_towers.SIZE, tiny_towers.SIZE)
    with pytest.raises(ConfigError, match="image_folder"):
        ImageDataset([tmp_path / "data.json"], processor)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no image"):
        ImageDataset([tmp_path / "empty"], processor)


def test_broken_images_are_skipped_counted_and_bounded(tmp_path, processor, caplog):
    for index in range(20):
        paint(tmp_path / f"{index:02}.png", index)
    for index in (3, 4, 9):
        (tmp_path / f"{index:02}.png").write_bytes((tmp_path / "00.png").read_bytes()[:40])
    dataset = ImageDataset([tmp_path], processor)
    assert torch.equal(dataset[3][0], dataset[5][0])
    assert dataset[3][1] == dataset[5][1]
    for index in range(20):
        dataset[index]
    assert dataset.skips.indices == [3, 4, 9]
    assert sum("sample skipped" in message for message in caplog.messages) == 3
    for index in range(10, 13):
        shutil.copy(tmp_path / "03.png", tmp_path / f"{index}.png")
    strict = ImageDataset([tmp_path], processor, max_error_share=0.25)  # five may be broken, the sixth stops
    with pytest.raises(DataError, match="6 bad samples, more than the 5 allowed"):
        [strict[index] for index in range(20)]
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError):
        ImageDataset([tmp_path], processor, max_error_share=1.0)[0]


def test_nothing_out_of_the_folders_is_read(tmp_path, processor):
    paint(tmp_path / "secret.png", 0)
    for index in range(8):
        paint(tmp_path / "images" / f"{index}.png", index + 1)
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    talk = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]
    names = ["0.png", "../secret.png", str(tmp_path / "secret.png"), "link.png"]
    rows = [{"id": name, "image": name, "conversations": talk} for name in names]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    listed = ImageDataset([tmp_path / "data.json"], processor, image_folder=tmp_path / "images")
    inside = listed[0].pixels_3HW
    assert all(torch.equal(listed[index].pixels_3HW, inside) for index in range(4)), "the next one that may be read"
    assert listed.skips.indices == [1, 2, 3]
    folder = ImageDataset([tmp_path / "images"], processor)
    assert len(folder) == 9
    [folder[index] for index in range(9)]
    assert [folder.names[index] for index in folder.skips.indices] == [str(tmp_path / "images" / "link.png")]
    allowed = ImageDataset([tmp_path / "images"], processor, allow_symlinks=True)
    [allowed[index] for index in range(9)]
    assert not allowed.skips.indices
