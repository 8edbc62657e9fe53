"""Stage 2 on rows with several images, with one and with none, out of a table and out of a folder."""

import json

import pytest
import torch

datasets = pytest.importorskip("datasets")


def losses(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


@pytest.fixture
def rows(world):
    """Written as JSON beside the images."""
    talks = []
    for number in range(12):
        count = number % 3
        places = "".join(f"<image> is {word} " for word in ("red", "blue")[:count])
        talks.append(
            {
                "id": str(number),
                "image": [f"{number + which}.png" for which in range(count)],
                "conversations": [
                    {"from": "human", "value": f"{places}what is it ?"},
                    {"from": "gpt", "value": "a box"},
                ],
            }
        )
    (world / "data" / "several.json").write_text(json.dumps(talks))
    return talks


def test_losses_are_those_of_padded_rows(rows, train, tmp_path):
    found = {}
    for padding_free in ("true", "false"):
        output = tmp_path / padding_free
        options = ["data.train=[./data/several.json]", f"train.padding_free={padding_free}", "lora.lora_dropout=0"]
        options += [f"train.output_dir={output}", "train.max_steps=3", "train.save_merged=false"]
        assert train("finetune", *options) == 0
        found[padding_free] = losses(output)
    assert len(found["true"]) == 3
    assert found["false"] == pytest.approx(found["true"], abs=2e-4)


def test_a_table_gives_the_same_samples(world, rows, make_trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    images = world / "data" / "images"
    held = [
        {**row, "image": [{"bytes": (images / name).read_bytes(), "path": name} for name in row["image"]]}
        for row in rows
    ]
    turn = {"from": datasets.Value("string"), "value": datasets.Value("string")}
    features = datasets.Features({"id": datasets.Value("string"), "image": [datasets.Image()], "conversations": [turn]})
    datasets.Dataset.from_list(held, features=features).save_to_disk(world / "data" / "saved")
    loose, table = (
        make_trainer("finetune", *options).train_dataset
        for options in (["data.train=[./data/several.json]"], ["data.train=[./data/saved]", "data.image_folder=null"])
    )
    assert len(loose) == len(table) == 12
    for index in range(12):
        one, other = loose[index], table[index]
        assert (one["input_ids"], one["labels"]) == (other["input_ids"], other["labels"])
        assert (one["pixel_values"] is None) == (index % 3 == 0)
        assert one["pixel_values"] is None or torch.equal(one["pixel_values"], other["pixel_values"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image": ["0.png", "1.png", "2.png"]},
            "sample '2': the sample has 3 images but its text has 2 times <image>",
        ),
        ({"image": []}, "sample '2': the text has <image> but the sample has no image"),
        ({"image": [], "video": "a.mp4"}, "its picture stands under 'video', where it is not read"),
        ({"images": ["0.png"]}, "its pictures stand under 'image' and under 'images'"),
    ],
)
def test_rows_that_do_not_fit_are_named_before_training(world, rows, train, capfd, change, message):
    rows[2] |= change
    (world / "data" / "several.json").write_text(json.dumps(rows))
    assert train("finetune", "data.train=[./data/several.json]") != 0
    assert message in capfd.readouterr().err
