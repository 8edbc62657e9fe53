"""Tables with images inside, as the hub's data sets come: what `datasets` writes is read back byte for byte."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor

from tove_lvlm.config import ConfigError
from tove_lvlm.data.check import check_data
from tove_lvlm.data.dataset import ToVEDataset
from tove_lvlm.data.errors import DataError
from tove_lvlm.data.records import READ_SAMPLES, Records
from tove_lvlm.data.tables import is_table, read_cell, read_table, tables_in
from tove_lvlm.recipes.sources import data_files

datasets = pytest.importorskip("datasets")
COLORS = ("red", "green", "blue", "white")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def png(color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(file, "PNG")
    return file.getvalue()


def talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def rows(num_images: int = 1) -> list[dict]:
    """One row for each color; the third has no image."""
    made = []
    for number, color in enumerate(COLORS):
        places = "" if number == 2 else "<image>\n" * num_images
        images = [] if number == 2 else [{"bytes": png(color), "path": f"{color}.png"}] * num_images
        made.append(
            {
                "id": f"r{number}",
                "images" if num_images > 1 else "image": images if num_images > 1 else next(iter(images), None),
                "conversations": talk(f"{places}what ?", color),
            }
        )
    return made


def table(made: list[dict]):
    """As `datasets` has it, with its Image feature."""
    several = "images" in made[0]
    turn = {"from": datasets.Value("string"), "value": datasets.Value("string")}
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            **({"images": [datasets.Image()]} if several else {"image": datasets.Image()}),
            "conversations": [turn],
        }
    )
    return datasets.Dataset.from_list(made, features=features)


@pytest.fixture(params=["parquet", "saved"])
def path(request, tmp_path):
    def write(made):
        if request.param == "saved":
            table(made).save_to_disk(tmp_path / "saved")
            return tmp_path / "saved"
        table(made).to_parquet(tmp_path / "train.parquet", batch_size=2)
        return tmp_path / "train.parquet"

    return write


@pytest.mark.parametrize("num_images", [1, 3])
def test_rows_and_images_are_what_was_written(path, num_images):
    file = path(rows(num_images))
    assert is_table(file)
    records = Records.load([file], lambda record: None, reader=READ_SAMPLES)
    assert [records[index].sample_id for index in range(4)] == ["r0", "r1", "r2", "r3"]
    assert list(records.has_image) == [True, True, False, True]
    assert records.shards == [4]
    for index, color in enumerate(COLORS):
        record = records[index]
        assert record.conversation == rows(num_images)[index]["conversations"]
        assert [image.name for image in record.images] == ([] if index == 2 else [f"{color}.png"] * num_images)
        assert all(record.stored(image) == png(color) for image in record.images)


def test_a_data_set_gives_each_rows_own_pixels(path, tokenizer):
    processor = CLIPImageProcessor(size={"shortest_edge": 4}, crop_size={"height": 4, "width": 4})
    options = {"tokenizer": tokenizer, "num_image_tokens": 4, "model_max_length": 200}
    data = ToVEDataset(path(rows()), image_processor=processor, **options)
    mean, std = (np.array(values) for values in (processor.image_mean, processor.image_std))
    for index, color in enumerate(COLORS):
        pixels = data[index]["pixel_values"]
        if index == 2:
            assert pixels is None
            continue
        red_green_blue = np.array(Image.new("RGB", (1, 1), color)).reshape(3) / 255
        expected_3 = torch.tensor((red_green_blue - mean) / std, dtype=torch.float32)
        torch.testing.assert_close(pixels, expected_3[None, :, None, None].expand(1, 3, 4, 4), atol=1e-5, rtol=1e-5)


def test_tove_data_looks_through_it(path):
    made = rows()
    made[1]["image"] = {"bytes": png("red")[:30], "path": "cut.png"}
    made[3]["conversations"] = [{"from": "human", "value": "<image>\n?"}]
    report = check_data([path(made)])
    assert (report.num_samples, report.num_images) == (4, 1)
    assert {error.sample_id for error in report.broken} == {"r1", "r3"}


def test_paths_without_bytes_are_looked_for_in_the_image_folder(tmp_path, tokenizer):
    made = [{"image": "a.png", "conversations": talk("<image>\n?", "red")}]
    datasets.Dataset.from_list(made).to_parquet(tmp_path / "a.parquet")
    (sample,) = read_table(tmp_path / "a.parquet")
    assert (sample.sample["image"], sample.places, sample.sample["id"]) == (["a.png"], [None], "row 0")
    with pytest.raises(DataError, match="image_folder is not set"):
        ToVEDataset(
            tmp_path / "a.parquet", tokenizer=tokenizer, image_processor=None, num_image_tokens=4, model_max_length=99
        )


def test_plain_bytes_and_turns_as_columns(tmp_path):
    columns = {"image": [png("red")], "conversations": [{"from": ["human", "gpt"], "value": ["<image>\n?", "red"]}]}
    datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "a.parquet")
    (sample,) = read_table(tmp_path / "a.parquet")
    assert sample.sample["conversations"] == talk("<image>\n?", "red")
    assert read_cell(tmp_path / "a.parquet", *sample.places[0]) == png("red")


def test_a_selection_keeps_its_order(tmp_path):
    """`datasets` saves the rows that were chosen, by indices."""
    table(rows()).select([3, 0]).save_to_disk(tmp_path / "some")
    samples = list(read_table(tmp_path / "some"))
    assert [sample.sample["id"] for sample in samples] == ["r3", "r0"]
    assert read_cell(tmp_path / "some", *samples[0].places[0]) == png("white")


# ---- folders, and what is wrong ----


def resolve(key, source, kind, hub=False):
    return str(source)


def test_a_hubs_folder_is_its_training_files(tmp_path):
    folder = tmp_path / "hub" / "data"
    folder.mkdir(parents=True)
    for name in ("train-00001-of-00002", "train-00000-of-00002", "test-00000-of-00001"):
        table(rows()).to_parquet(folder / f"{name}.parquet")
    expected = [str(folder / f"train-0000{number}-of-00002.parquet") for number in range(2)]
    assert data_files("data.train", [str(tmp_path / "hub")], resolve) == expected
    assert tables_in(folder / "..") != []


def test_folders_that_are_no_table_are_named(tmp_path):
    datasets.DatasetDict({"train": table(rows()), "val": table(rows())}).save_to_disk(tmp_path / "splits")
    with pytest.raises(
        ConfigError, match=r"`data.train\[0\]`: .*holds several splits \(train, val\); name one of them"
    ):
        data_files("data.train", [str(tmp_path / "splits")], resolve)
    assert data_files("data.train", [str(tmp_path / "splits" / "val")], resolve) == [str(tmp_path / "splits" / "val")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no parquet file and was not saved by `datasets`"):
        data_files("data.train", [str(tmp_path / "empty")], resolve)


def test_broken_tables_are_one_line(tmp_path):
    table(rows()).to_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"cut.parquet: cannot be read as a table"):
        list(read_table(tmp_path / "cut.parquet"))
    with pytest.raises(FileNotFoundError):
        list(read_table(tmp_path / "none.parquet"))
    with pytest.raises(DataError, match="has changed since the run began"):
        read_cell(tmp_path / "a.parquet", 9, 0)
    with pytest.raises(DataError, match="has changed since the run began"):
        read_cell(tmp_path / "a.parquet", 0, 1)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "b.parquet").write_bytes(b"")
    with pytest.raises(ImportError, match=r"pip install 'tove-lvlm\[tables\]'"):
        list(read_table(tmp_path / "b.parquet"))


def test_two_processes_read_one_file(tmp_path):
    """As ranks and workers do: the cache is written once."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    table(rows()).to_parquet(tmp_path / "a.parquet")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(read_cell, [tmp_path / "a.parquet"] * 4, (0, 1, 3, 0), [0] * 4))
    assert found == [png("red"), png("green"), png("white"), png("red")]
