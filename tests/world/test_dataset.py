"""The miniature's files: LLaVA's format, equal on every run, whole or not there."""

import json

import numpy as np
import pytest
from PIL import Image

from tove_lvlm.world import dataset, language
from tove_lvlm.world.render import render
from tove_lvlm.world.scene import sample, split_seeds


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    calls = []
    dataset.write_dataset(root / "train", "train", 300, seed=3, progress=lambda *done: calls.append(done))
    dataset.write_dataset(root / "heldout", "heldout", 40, seed=3)
    assert calls == [(256, 300), (300, 300)]
    return root


def _files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_two_runs_write_the_same_bytes(written, tmp_path):
    dataset.write_dataset(tmp_path / "again", "train", 300, seed=3)
    assert _files(tmp_path / "again") == _files(written / "train")
    dataset.write_dataset(tmp_path / "other", "train", 4, seed=4)
    other = _files(tmp_path / "other")
    assert other["images/000000.png"] != _files(written / "train")["images/000000.png"]


def test_fewer_scenes_are_a_prefix(written, tmp_path):
    dataset.write_dataset(tmp_path / "few", "train", 20, seed=3)
    for name in ("pretrain.json", "finetune.json"):
        assert (
            json.loads((tmp_path / "few" / name).read_text()) == json.loads((written / "train" / name).read_text())[:20]
        )


def test_pictures_are_the_rendered_scenes(written):
    scenes = sample(split_seeds("train", 3, start=3 << 32))
    expected = render(scenes).rgb
    for i in range(3):
        picture = Image.open(written / "train" / "images" / f"{i:06d}.png")
        assert picture.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(picture), expected[i])


def test_train_files_are_llava_json(written):
    folder = written / "train"
    captions, conversations = (json.loads((folder / name).read_text()) for name in ("pretrain.json", "finetune.json"))
    assert len(captions) == len(conversations) == 300
    for samples in (captions, conversations):
        assert len({one["id"] for one in samples}) == 300
        for one in samples:
            assert (folder / "images" / one["image"]).is_file()
            turns = one["conversations"]
            assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
            assert turns[0]["value"].startswith("<image>\n")
            assert sum(turn["value"].count("<image>") for turn in turns) == 1
    assert {len(one["conversations"]) for one in captions} == {2}
    lengths = [len(one["conversations"]) // 2 for one in conversations]
    assert max(lengths) <= 12
    assert np.mean(lengths) > 8
    assert [path.name for path in folder.glob("*.jsonl")] == ["statements.jsonl"]


def test_train_statements_have_vsrs_format_and_are_true_of_half_of_the_pictures(written):
    rows = _lines(written / "train" / "statements.jsonl")
    assert set(rows[0]) == {"image", "caption", "label", "relation"}
    assert len({row["image"] for row in rows}) > 250, "a few pictures have nothing to be sure of"
    assert 0.45 < np.mean([row["label"] for row in rows]) < 0.55
    scenes = sample(split_seeds("train", 300, start=3 << 32))
    sides = [row for row in rows if row["relation"] == "side"]
    assert len(sides) > 100
    for row in sides:
        here = {thing.color: thing for thing in language.things(scenes, int(row["image"][:6]))}
        _, first, *_, second, _ = row["caption"].split()
        assert (here[first].x > here[second].x) == (bool(row["label"]) == ("right" in row["caption"]))


def test_texts_are_about_their_own_picture(written):
    scenes = sample(split_seeds("train", 5, start=3 << 32))
    captions = json.loads((written / "train" / "pretrain.json").read_text())
    for i in range(5):
        said = captions[i]["conversations"][1]["value"]
        for thing in language.things(scenes, i):
            assert f"{thing.color} {thing.shape}" in said
    counts = [str(n) for n in sample(split_seeds("heldout", 40, start=3 << 32)).num_objects]
    asked = [q for q in _lines(written / "heldout" / "questions.jsonl") if q["family"] == "count"]
    assert len(asked) == 40
    assert [q["answer"] for q in asked] == [counts[int(q["image"][:6])] for q in asked]


def test_heldout_files(written):
    folder = written / "heldout"
    questions = _lines(folder / "questions.jsonl")
    assert set(questions[0]) == {"question_id", "image", "text", "answer", "family"}
    assert len({q["question_id"] for q in questions}) == len(questions)
    assert {q["family"] for q in questions} == set(language.FAMILIES)
    per_picture = [(q["image"], q["family"]) for q in questions]
    assert len(set(per_picture)) == len(per_picture)
    assert not list(folder.glob("*train.json"))
    assert not (folder / "finetune.json").exists()
    statements = _lines(folder / "statements.jsonl")
    assert {type(s["label"]) for s in statements} == {bool}
    assert len(_lines(folder / "captions.jsonl")) == 40
    summary = json.loads((folder / "dataset.json").read_text())
    assert summary["files"]["questions.jsonl"] == len(questions)


def test_train_and_heldout_pictures_differ(written):
    train = {path.read_bytes() for path in (written / "train" / "images").iterdir()}
    heldout = {path.read_bytes() for path in (written / "heldout" / "images").iterdir()}
    assert len(train) == 300
    assert len(heldout) == 40
    assert not train & heldout


def test_nothing_is_left_of_a_failed_run(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset.language, "captions", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dataset.write_dataset(tmp_path / "broken", "train", 3)
    assert list(tmp_path.iterdir()) == []


def test_an_old_data_set_is_replaced_and_anything_else_is_kept(tmp_path):
    dataset.write_dataset(tmp_path / "a", "train", 5)
    dataset.write_dataset(tmp_path / "a", "train", 2)
    assert len(list((tmp_path / "a" / "images").iterdir())) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match="not a miniature data set"):
        dataset.write_dataset(tmp_path / "mine", "train", 2)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


@pytest.mark.parametrize(
    "arguments",
    [{"split": "val"}, {"num_scenes": 0}, {"questions_per_scene": 0}, {"questions_per_scene": 21}, {"seed": -1}],
)
def test_bad_arguments_are_refused(tmp_path, arguments):
    with pytest.raises(ValueError, match=r"split|num_scenes|questions_per_scene"):
        dataset.write_dataset(tmp_path / "x", **({"split": "train", "num_scenes": 2} | arguments))
    assert list(tmp_path.iterdir()) == []


def test_all_tasks_adds_statements_and_a_caption_to_the_conversations(tmp_path):
    dataset.write_dataset(tmp_path / "plain", "train", 40, seed=3)
    dataset.write_dataset(tmp_path / "all", "train", 40, seed=3, all_tasks=True)
    plain, full = (json.loads((tmp_path / name / "finetune.json").read_text()) for name in ("plain", "all"))
    first_asked, num_said = set(), []
    for before, after in zip(plain, full, strict=True):
        pairs, had = (
            {
                (s["conversations"][k]["value"].removeprefix("<image>\n"), s["conversations"][k + 1]["value"])
                for k in range(0, len(s["conversations"]), 2)
            }
            for s in (after, before)
        )
        assert had <= pairs
        added = pairs - had
        captions = [answer for asked, answer in added if asked == dataset.DESCRIBE]
        assert len(captions) == 1
        assert len(captions[0].split()) > 2
        said = {asked: answer for asked, answer in added if asked != dataset.DESCRIBE}
        num_said.append(len(said))
        assert set(said.values()) <= {"yes", "no"}
        assert all(text.startswith("The ") and text.endswith(".") for text in said)
        assert [turn["value"].startswith("<image>\n") for turn in after["conversations"]].count(True) == 1
        first_asked.add(after["conversations"][0]["value"].split()[1])
    assert max(num_said) == 4
    assert sum(num_said) > 2 * len(num_said), "few scenes have nothing to state"
    assert len(first_asked) > 3, "the new turns stand anywhere"
    assert (tmp_path / "plain" / "pretrain.json").read_text() == (tmp_path / "all" / "pretrain.json").read_text()
