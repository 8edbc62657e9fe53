"""`tove data`: what training would refuse, skip or cut is found beforehand, with the numbers of the data set."""

import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from helpers.tiny_lvlm import make_llm
from tove_lvlm.cli import app
from tove_lvlm.config import UserError
from tove_lvlm.data.check import Context, check_data
from tove_lvlm.data.dataset import ToVEDataset
from tove_lvlm.data.errors import DataError
from tove_lvlm.lvlm.build import load_tokenizer


def sample(sample_id, image="a.png", question="what ?", answer="a box", **fields) -> dict:
    tag = "" if image is None else "<image>\n"
    turns = [{"from": "human", "value": tag + question}, {"from": "gpt", "value": answer}]
    return {"id": sample_id, **({} if image is None else {"image": image}), "conversations": turns} | fields


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    Image.new("RGBA", (10, 30), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    return tmp_path


def write(folder, samples, name="data.json"):
    (folder / name).write_text(json.dumps(samples))
    return folder / name


def test_numbers_of_a_good_data_set(folder):
    samples = [
        sample("1"),
        sample("2", image="clear.png", question="what is red ?"),
        sample("3", image=None, question="one two three four", answer="five"),
        sample("3"),
        sample("5"),
    ]
    samples[0]["conversations"] += [{"from": "human", "value": "and ?"}, {"from": "gpt", "value": "no"}]
    report = check_data([write(folder, samples)], image_folder=folder)
    assert (report.num_samples, report.num_with_image, report.num_text_only) == (5, 4, 1)
    assert (report.num_rounds, report.num_images, report.broken) == (6, 2, [])
    assert report.image_sizes == {"min": 10, "median": 15, "max": 40}
    assert report.num_transparent == 1
    assert (report.same_id, report.num_repeated) == ({"3": 2}, 1)
    words = [8, 7, 5, 5, 5]  # with the tag
    assert report.lengths == {"median": 5, "p95": np.percentile(words, 95), "max": 8}


BROKEN = {
    "missing": (sample("1", image="no.png"), "there is no image"),
    "cut short": (sample("2", image="cut.png"), "cannot be read"),
    "leaves": (sample("3", image="../a.png"), "leaves the image folder"),
    "other key": ({**sample("4", image=None), "image_path": "a.png"}, "stands under 'image_path'"),
    "roles": (sample("5", conversations=[{"from": "user", "value": "<image>"}, {"from": "gpt", "value": "b"}]), "user"),
    "no answer": (sample("6", conversations=[{"from": "human", "value": "<image>\n?"}]), "no answer to learn from"),
    "no tag": (sample("7", conversations=sample("", image=None)["conversations"]), "<image>"),
    "no object": (["x"], "a sample must be an object"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_training_refuses_is_found_and_nothing_else(folder, kind):
    bad, told = BROKEN[kind]
    path = write(folder, [sample("good"), bad, sample("fine", image=None)])
    (found,) = check_data([path], image_folder=folder).broken
    assert told in found.reason
    with pytest.raises(DataError) as error:
        train_on(path, folder)
    assert found.reason == error.value.reason
    assert str(found).startswith(f"{path}, sample ")


def train_on(path, folder) -> None:
    """Raise what training raises: the texts are checked at once, an image when it is read."""
    options = {"num_image_tokens": 4, "model_max_length": 99, "image_folder": folder}
    data = ToVEDataset([path], tokenizer=None, image_processor=None, **options)
    data._read(data.records[1], data.records[1].images[0])


def test_kinds_of_reasons_are_counted(folder):
    samples = [sample(str(n), image=f"dir{n}/{n}.png") for n in range(12)]
    samples += [sample("x", image="cut.png"), sample("ok")]
    report = check_data([write(folder, samples)], image_folder=folder)
    (first, twelve, example), (second, one, _) = report.reasons
    assert (first, twelve) == ("there is no image ...", 12)
    assert (second.split(":")[0], one) == ("image ... cannot be read", 1)
    assert "sample '0'" in str(example)


@pytest.mark.parametrize("workers", [1, 7])
def test_images_are_opened_once_and_not_at_all_where_asked(folder, monkeypatch, workers):
    from tove_lvlm.data import check

    opened = []
    real = check.read_image
    monkeypatch.setattr(check, "read_image", lambda *args, **keys: opened.append(args[0].name) or real(*args, **keys))
    path = write(folder, [sample(str(n), image=("a.png", "clear.png")[n % 2], answer=str(n)) for n in range(40)])
    report = check_data([path], image_folder=folder, workers=workers)
    assert set(opened) == {"a.png", "clear.png"}
    assert len(opened) <= 2 * workers
    assert (report.num_images, report.num_transparent) == (2, 1)
    opened.clear()
    report = check_data([path], image_folder=folder, workers=workers, decode=False)
    assert (opened, report.num_images, report.image_sizes) == ([], 2, {})


def test_lengths_in_tokens_and_what_the_context_cuts(folder, tmp_path):
    make_llm(tmp_path / "llm")
    tokenizer = load_tokenizer(str(tmp_path / "llm"))
    long = sample("long", answer="box " * 300)
    hopeless = sample("hopeless", question="red " * 300)
    path = write(folder, [sample("a"), long, hopeless, sample("b", image=None)])
    context = Context(tokenizer=tokenizer, num_image_tokens=16, max_length=300)
    report = check_data([path], image_folder=folder, context=context)
    (found,) = report.broken
    assert (found.sample_id, "starts after the end of the context of 300 tokens" in found.reason) == ("hopeless", True)
    options = {"tokenizer": tokenizer, "num_image_tokens": 16, "model_max_length": 10_000, "image_folder": folder}
    data = ToVEDataset([path], image_processor=None, **options)
    expected = [_tokens(data, index) for index in (0, 1, 3)]
    assert report.lengths["max"] == max(expected) > 300
    assert report.lengths["median"] == np.median(expected)
    assert report.lengths["cut"] == 1


def _tokens(data, index: int) -> int:
    record = data.records[index]
    if not record.images:
        return len(data[index]["input_ids"])
    data._read = lambda record, image: torch.zeros(1)
    return len(data[index]["input_ids"]) + 15


def test_other_formats_and_shards(folder):
    captions = [{"id": 7 + n, "image_id": 1 + n, "caption": "a box"} for n in range(2)]  # of an image and of none
    images = [{"id": 1, "file_name": "a.png"}]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    report = check_data([folder / "captions.json"], image_folder=folder, source_format="coco")
    assert (report.num_samples, report.num_with_image, len(report.broken)) == (2, 1, 1)
    with tarfile.open(folder / "shard.tar", "w") as shard:
        for number, image in enumerate(("a.png", "cut.png")):
            shard.add(folder / image, f"{number}.png")
            (folder / "x.txt").write_text("a box")
            shard.add(folder / "x.txt", f"{number}.txt")
    report = check_data([folder / "shard.tar"])
    assert (report.num_with_image, report.num_images, len(report.broken)) == (2, 1, 1)
    with pytest.raises(UserError, match="format `coca` is unknown; expected one of llava, coco"):
        check_data([folder / "captions.json"], source_format="coca")


# ---- the command ----


def run(*arguments):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def test_the_command_says_all_of_it_and_exits_1_where_a_sample_is_broken(folder):
    path = write(folder, [sample("good"), sample("bad", image="no.png")])
    done = run(path, "--image-folder", folder)
    assert done.exit_code == 1
    assert "1 x there is no image ..." in done.stdout
    assert "sample 'bad'" in done.stdout
    told = json.loads(run(path, "--image-folder", folder, "--json").stdout)
    assert (told["num_samples"], told["num_broken"], told["broken"][0]["samples"]) == (2, 1, 1)
    assert run(write(folder, [sample("good")]), "--image-folder", folder).exit_code == 0


def test_what_is_no_data_is_one_line(folder):
    for arguments, told in [
        ([folder / "none.json"], "none.json does not exist"),
        ([write(folder, {"a": 1}, "object.json"), "--image-folder", folder], "must hold a list of samples"),
        ([write(folder, [sample("1")]), "--image-folder", folder / "none"], "is not a folder"),
        ([write(folder, [sample("1")]), "--tokenizer", "./none"], "`./none` does not exist"),
        ([write(folder, [sample("1")]), "--stage", "both"], "--stage both is unknown; expected pretrain or finetune"),
    ]:
        done = run(*arguments)
        assert isinstance(done.exception, UserError), done.output
        assert told in str(done.exception)
