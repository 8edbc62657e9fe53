"""Images with texts: what stands in place of a question, later epochs, several sources, a batch."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor

from tove_lvlm.data.conversations import IGNORE_INDEX, Encoded
from tove_lvlm.data.errors import DataError
from tove_lvlm.data.text_dataset import TextCollator, TextDataset, TextMix


class Encoder:
    """Rows that can be read: the lengths of the words."""

    def encode_rounds(self, pairs):
        rows = []
        for question, answer in pairs:
            asked, said = ([len(word) for word in text.split()] for text in (question, answer))
            rows.append(Encoded([0, *asked, *said, 9], [*[IGNORE_INDEX] * (1 + len(asked)), *said, 9]))
        return rows


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    talks = []
    for index in range(4):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
        turns = [("human", "<image>\nwhat ?"), ("gpt", "a ball"), ("human", "where is it ?"), ("gpt", "here")]
        conversation = [{"from": role, "value": text} for role, text in turns[: 4 if index == 1 else 2]]
        talks.append({"id": str(index), "image": f"{index}.png", "conversations": conversation})
    (tmp_path / "talks.json").write_text(json.dumps(talks))
    (tmp_path / "one.json").write_text(json.dumps(talks[2:3]))
    return tmp_path


def source(folder, name="talks.json", **options) -> TextDataset:
    size = {"height": 8, "width": 8}
    processor = CLIPImageProcessor(size={"shortest_edge": 8}, crop_size=size)
    return TextDataset([folder / name], encoder=Encoder(), image_processor=processor, image_folder=folder, **options)


def test_questions_are_kept_and_a_prefix_takes_their_place(folder):
    assert source(folder)[0]["rows"] == [Encoded([0, 4, 1, 1, 4, 9], [-100, -100, -100, 1, 4, 9])]
    assert len(source(folder)[1]["rows"]) == 2
    captions = source(folder, "one.json", prefix="A picture of")
    assert captions[0]["rows"][0].input_ids == [0, 1, 7, 2, 1, 4, 9]
    with pytest.raises(DataError, match="sample '1': a caption is one text, the conversation has 2"):
        source(folder, prefix="")


def test_a_later_epoch_has_the_same_text_and_another_crop(folder):
    mix = TextMix([source(folder, augmented=True, seed=5), source(folder, "one.json", augmented=True, seed=6)])
    assert len(mix) == 5
    first, later = mix[2], mix[2 + 5]
    assert first["rows"] == later["rows"]
    assert not torch.equal(first["pixel_values"], later["pixel_values"])
    assert torch.equal(mix[7]["pixel_values"], later["pixel_values"])
    assert mix[4]["sample_id"] == mix[9]["sample_id"] == "2"
    plain = TextMix([source(folder)])
    assert torch.equal(plain[1]["pixel_values"], plain[5]["pixel_values"])


def test_a_batch_has_an_image_once_and_a_row_for_each_text(folder):
    data = source(folder)
    batch = TextCollator(pad_token_id=7)([data[0], data[1]])
    assert batch["pixel_values"].shape == (2, 3, 8, 8)
    assert batch["image_of"].tolist() == [0, 1, 1]
    assert batch["input_ids"].tolist()[0] == [0, 4, 1, 1, 4, 9, 7]
    assert batch["attention_mask"].tolist()[0] == [1, 1, 1, 1, 1, 1, 0]
    assert batch["labels"].tolist()[0][:3] == [1, 4, 9]
    assert batch["logits_to_keep"].tolist()[0][:3] == [2, 3, 4]
    assert batch["sample_ids"] == ["0", "1"]


def test_a_broken_image_is_skipped_for_the_next_sample(folder):
    (folder / "1.png").write_bytes(b"no picture")
    data = source(folder, on_error="skip")
    assert data[1]["sample_id"] == "2"
    assert data.skips.indices == [1]
    with pytest.raises(DataError, match="sample '1'"):
        source(folder)[1]
