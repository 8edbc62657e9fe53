"""The data set on bad input: what is named, what is skipped, and that workers change nothing."""

import json
import logging
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from tove_lvlm.data.conversations import Encoded
from tove_lvlm.data.dataset import ToVEDataset, check_context
from tove_lvlm.data.errors import DataError
from tove_lvlm.data.records import Records


def sample(name, image=None, question="What?", answer="A cat."):
    text = f"<image>\n{question}" if image else question
    turns = [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]
    return {"id": name, "conversations": turns} | ({"image": image} if image else {})


@pytest.fixture
def make_dataset(make_data, image_tokenizer, processor):
    def make(samples, images=(), name="train.json", **options):
        file, folder = make_data(samples, name, images)
        options = {"model_max_length": 256, "num_image_tokens": 4, "image_folder": folder} | options
        return ToVEDataset(file, tokenizer=image_tokenizer, image_processor=processor, **options)

    return make


@pytest.fixture
def mixed(make_dataset, tmp_path):
    """40 samples, half of them with images, of which 7 (broken) and 21 (missing) are bad."""

    def make(**options):
        samples = [sample(f"s{i}", f"{i}.png" if i % 2 else None, answer=f"answer {i}") for i in range(40)]
        images = [(f"{i}.png", (20, 16)) for i in range(1, 40, 2) if i != 21]
        dataset = make_dataset(samples, images, **options)
        (tmp_path / "images" / "7.png").write_bytes(b"broken")
        return dataset

    return make


def test_samples(make_dataset):
    dataset = make_dataset([sample("a", "a.png"), sample("b")], [("a.png", (20, 16))])
    assert len(dataset) == 2
    assert dataset[0]["sample_id"] == "a"
    assert dataset[0]["pixel_values"].shape == (1, 3, 16, 16)
    assert dataset[0]["input_ids"].count(-200) == 1
    assert dataset[1]["pixel_values"] is None
    assert dataset[-1] == dataset[1]
    with pytest.raises(IndexError, match="sample 2 of 2"):
        dataset[2]


def test_json_and_jsonl_and_several_files_agree(make_data, make_dataset, image_tokenizer, processor):
    samples = [sample(f"s{i}", answer=f"line {i}\u2028 \u00e9") for i in range(5)]
    first, folder = make_data(samples[:2])
    second, _ = make_data(samples[2:], "more.jsonl")
    options = {
        "tokenizer": image_tokenizer,
        "image_processor": processor,
        "num_image_tokens": 4,
        "model_max_length": 99,
    }
    parts = ToVEDataset([first, second], **options)
    second.write_text("\n\n".join(json.dumps(item, ensure_ascii=False) for item in samples), encoding="utf-8-sig")
    whole = ToVEDataset(second, **options)
    assert list(parts) == list(whole)
    assert [item["sample_id"] for item in whole] == [f"s{i}" for i in range(5)]


@pytest.mark.parametrize("ending", ["", "\n", "\n\n \n"])
def test_json_lines_in_a_file_called_json(make_data, make_dataset, image_tokenizer, processor, ending):
    file, _ = make_data([])
    file.write_text("\n".join(json.dumps(sample(name)) for name in "abc") + ending)
    dataset = ToVEDataset(
        file, tokenizer=image_tokenizer, image_processor=processor, num_image_tokens=4, model_max_length=99
    )
    assert [item["sample_id"] for item in dataset] == list("abc")


def test_how_many_have_pictures_is_told(make_dataset, caplog):
    with caplog.at_level(logging.INFO):
        make_dataset([sample("a", "1.png"), sample("b"), sample("c") | {"images": []}], [("1.png", (8, 8))])
    assert "1 samples with an image, 2 of text alone" in caplog.text


def test_missing_ids_become_positions_and_null_images_are_none(make_dataset):
    samples = [sample("x"), sample("y")]
    del samples[0]["id"]
    samples[1] |= {"id": 17, "image": None}
    assert [item["sample_id"] for item in make_dataset(samples)] == ["#0", "17"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "train.json: holds no samples"),
        ("{}", "train.json: must hold a list of samples, holds dict"),
        ("[{]", "train.json: not valid JSON"),
        ("", "train.json: not valid JSON"),
        ("[" * 100_000, "train.json: not valid JSON"),
        ('[{"id": ' + "9" * 5000 + "}]", "train.json: not valid JSON: Exceeds the limit"),
        ("[3]", "train.json, sample '#0': a sample must be an object"),
        ('[{"id": "a"}]', "train.json, sample 'a': 'conversations' must be a list"),
        ('[{"id": "a", "conversations": []}]', "train.json, sample 'a': 'conversations' must be a list"),
        (
            '[{"id": "a", "image": ["b", {}], "conversations": []}]',
            "sample 'a': 'image' must be a path or a list of paths, got {}",
        ),
        ('[{"id": "a", "video": ["b.png"]}]', "sample 'a': its picture stands under 'video', where it is not read"),
        ('[{"id": "a", "image_path": "b.png"}]', "its picture stands under 'image_path'"),
        ('[{"id": "a", "image": null, "video": "b.mp4"}]', "its picture stands under 'video'"),
        (json.dumps([sample("a", question="<video>\nWho?")]), "sample 'a': the text has <video>, and only images are"),
    ],
)
def test_bad_files_are_named(make_data, image_tokenizer, processor, text, message):
    file, folder = make_data([])
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        ToVEDataset(file, tokenizer=image_tokenizer, image_processor=processor, num_image_tokens=4, model_max_length=99)


def test_bad_line_of_jsonl_is_named(make_dataset, make_data, image_tokenizer, processor):
    file, _ = make_data([sample("a")], "train.jsonl")
    file.write_text(file.read_text() + "\n{broken\n")
    options = {
        "tokenizer": image_tokenizer,
        "image_processor": processor,
        "num_image_tokens": 4,
        "model_max_length": 99,
    }
    with pytest.raises(DataError, match="train.jsonl: line 3: not valid JSON"):
        ToVEDataset(file, **options)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="train.jsonl: cannot be read"):
        ToVEDataset(file, **options)
    with pytest.raises(FileNotFoundError, match="none.json does not exist"):
        ToVEDataset("none.json", **options)


def test_bad_options(make_dataset):
    for options, error, message in [
        ({"on_error": "ignore"}, ValueError, "unknown on_error 'ignore'; choose from raise, skip"),
        ({"template": "v9"}, ValueError, "unknown conversation template"),
        ({"image_aspect_ratio": "anyres"}, ValueError, "unknown image_aspect_ratio"),
        ({"max_error_share": 2.0}, ValueError, "max_error_share must lie"),
        ({"image_folder": "/nowhere"}, FileNotFoundError, "image_folder /nowhere is not a folder"),
    ]:
        with pytest.raises(error, match=message):
            make_dataset([sample("a")], **options)


def test_texts_are_checked_when_the_data_set_is_made(make_dataset):
    wrong_roles = sample("c")
    wrong_roles["conversations"] *= 2
    wrong_roles["conversations"].insert(1, wrong_roles["conversations"][0])
    for bad, message in [
        (sample("a") | {"image": "a.png"}, "sample 'a': the sample has one image but 0"),
        (sample("b", question="<image>"), "sample 'b': the text has <image> but the sample has no image"),
        (wrong_roles, "sample 'c': turn 1 is from 'human' after another 'human'"),
        (sample("d", answer=""), "sample 'd': the conversation has no answer"),
    ]:
        with pytest.raises(DataError, match=f"train.json, {message}"):
            make_dataset([sample("good"), bad])
        dataset = make_dataset([sample("good"), bad], on_error="skip")
        assert (len(dataset), dataset.skips.num) == (1, 1)
    with pytest.raises(DataError, match="sample 'a': the sample has an image but image_folder is not set"):
        make_dataset([sample("a", "a.png")], image_folder=None)
    with pytest.raises(DataError, match="no sample can be used"):
        make_dataset([bad], on_error="skip")


def test_images_are_opened_lazily_and_named(mixed):
    dataset = mixed()
    assert dataset[1]["sample_id"] == "s1"
    with pytest.raises(DataError, match=r"train.json, sample 's7': image .*7.png cannot be read") as caught:
        dataset[7]
    assert caught.value.sample_id == "s7"
    with pytest.raises(DataError, match=r"train.json, sample 's21': there is no image"):
        dataset[21]


def test_escaping_image_is_named(make_dataset):
    dataset = make_dataset([sample("a", "../train.json")])
    with pytest.raises(DataError, match=r"sample 'a': image path '\.\./train\.json' leaves the image folder"):
        dataset[0]


def test_skip_takes_the_next_good_sample_of_the_same_modality(mixed, caplog):
    dataset = mixed(on_error="skip")
    with caplog.at_level(logging.WARNING):
        assert dataset[7]["sample_id"] == "s9"
        assert torch.equal(dataset[7]["pixel_values"], dataset[9]["pixel_values"])
        assert dataset[21]["sample_id"] == "s23"
        assert dataset[7]["sample_id"] == "s9"
    assert dataset.skips.num == 2
    assert [dataset.records[index].sample_id for index in dataset.skips.indices] == ["s7", "s21"]
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [message.split(": ")[0] for message in told] == [
        "sample skipped (1 so far)",
        "sample skipped (2 so far)",
    ]


def test_skip_goes_around_the_end(make_dataset):
    samples = [sample("text"), sample("good", "good.png"), sample("text"), sample("lost", "lost.png")]
    dataset = make_dataset(samples, [("good.png", (16, 16))], on_error="skip")
    assert dataset[3]["sample_id"] == "good"


def test_too_many_bad_samples_stop(mixed, make_dataset):
    dataset = mixed(on_error="skip", min_errors=1)
    dataset[7]
    with pytest.raises(DataError, match="sample 's21': 2 bad samples, more than the 1 allowed; the last: there is no"):
        dataset[21]
    assert mixed(on_error="skip", min_errors=0, max_error_share=0.05).skips.max_errors == 2
    samples = [sample(str(i), answer="" if i < 3 else "yes") for i in range(10)]
    assert len(make_dataset(samples, on_error="skip", min_errors=3)) == 7
    with pytest.raises(DataError, match="sample '2': 3 bad samples, more than the 2 allowed"):
        make_dataset(samples, on_error="skip", min_errors=2)


def collate(samples):
    return [(item["sample_id"], item["input_ids"], item["pixel_values"]) for item in samples]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing_and_share_the_count(mixed, num_workers):
    order = [7, 3, 21, 20, 5, 7, 39, 0, 9, 21, 1, 2]
    alone = mixed(on_error="skip")
    expected = list(DataLoader(alone, batch_size=2, sampler=order, collate_fn=collate))
    shared = mixed(on_error="skip")
    loader = DataLoader(shared, batch_size=2, sampler=order, collate_fn=collate, num_workers=num_workers)
    for batch, reference in zip(loader, expected, strict=True):
        for (name, ids, pixels), (ref_name, ref_ids, ref_pixels) in zip(batch, reference, strict=True):
            assert (name, ids) == (ref_name, ref_ids)
            assert (pixels is None) == (ref_pixels is None)
            assert pixels is None or torch.equal(pixels, ref_pixels)
    assert shared.skips.num == alone.skips.num == 2
    assert [shared.records[index].sample_id for index in shared.skips.indices] == ["s7", "s21"]


def test_error_of_a_worker_is_one_line_with_the_sample(mixed):
    loader = DataLoader(mixed(), batch_size=1, sampler=[1, 7], collate_fn=collate, num_workers=1)
    with pytest.raises(DataError) as caught:
        list(loader)
    assert "sample 's7': image " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "labels", "length", "message"),
    [
        ([1, -200, 5, 6], [-100, -100, -100, 6], 7, None),
        ([1, -200, 5, 6], [-100, -100, -100, 6], 6, "first answer starts after the end of the context of 6"),
        ([1, -200, 5, 6], [-100, -100, 5, 6], 6, None),
        ([1, -200, 5, 6], [-100, -100, 5, 6], 4, "the image's 4 tokens do not fit into the context of 4"),
        ([1, 5, 6], [-100, -100, -100], 9, "no label is left within"),
        ([1, 5, 6], [-100, -100, 6], 2, "first answer starts after the end of the context of 2"),
    ],
)
def test_context(ids, labels, length, message):
    if message is None:
        check_context(Encoded(ids, labels), 4, length)
    else:
        with pytest.raises(DataError, match=message):
            check_context(Encoded(ids, labels), 4, length)


def test_sample_longer_than_the_context_is_named(make_dataset):
    dataset = make_dataset([sample("long", question="word " * 300)])
    with pytest.raises(DataError, match=r"train.json, sample 'long': the first answer starts after .* 256 tokens"):
        dataset[0]


def test_lengths_by_hand(make_dataset):
    samples = [
        sample("a", "a.png", "one two", "three"),
        sample("b", None, "one", "two  three\nfour"),
        sample("c", None, " ", " "),
    ]
    dataset = make_dataset(samples)
    assert dataset.lengths.tolist() == [4 + 128, 4, 1]  # <image> is a word for LLaVA
    assert dataset.modality_lengths.tolist() == [4, -4, -1]


def test_pickles(mixed):
    dataset = mixed()
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy[2] == dataset[2]
    assert isinstance(copy.records, Records)
