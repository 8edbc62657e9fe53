"""The miniature's benchmarks: official schemas and names, true labels, POPE's sampling, equal bytes on every run."""

import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image
from sentencepiece import SentencePieceProcessor

from helpers.paths import SHARED
from tove_lvlm.eval import tasks  # noqa: F401  fills TASKS
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.eval.tasks.base import TASKS
from tove_lvlm.storage import ASSETS
from tove_lvlm.world import benchmarks, language
from tove_lvlm.world.benchmarks import ASKED, write_benchmarks
from tove_lvlm.world.dataset import scene_seeds, write_dataset
from tove_lvlm.world.render import render
from tove_lvlm.world.scene import sample

NUM, SEED = 40, 3
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the official files are not on this machine")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks") / "root"
    content = write_benchmarks(folder, NUM, seed=SEED)
    assert json.loads((folder / "benchmarks.json").read_text()) == content
    assert content["files"] == sorted(set(_files(folder, "*.json*")) - {"benchmarks.json"})
    return folder


@pytest.fixture(scope="module")
def scenes():
    return sample(scene_seeds("heldout", NUM, SEED))


def _files(folder, pattern="*"):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern) if path.is_file()}


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def _names(scenes, i):
    return {f"{thing.color} {thing.shape}" for thing in language.things(scenes, i)}


def _pope(root, split):
    return _lines(root / f"playground/data/eval/pope/coco/coco_pope_{split}.json")


def _items(root, name):
    """The task's items and picture folder in the one of its layouts that is there."""
    task = TASKS.get(name)()
    for layout in task.layouts:
        labels = [sorted(root.glob(pattern)) for pattern in layout.labels]
        if all(labels):
            problems = Problems()
            items = task.read([path for found in labels for path in found], problems)
            assert problems.lines() == []
            return items, root / layout.images
    raise AssertionError(f"no layout of {name} is there")


def test_two_runs_write_the_same_bytes(root, tmp_path):
    write_benchmarks(tmp_path / "again", NUM, seed=SEED)
    assert _files(tmp_path / "again") == _files(root)
    write_benchmarks(tmp_path / "other", 3, seed=SEED + 1)
    name = "val2014/COCO_val2014_000000000001.jpg"
    assert (tmp_path / "other" / name).read_bytes() != (root / name).read_bytes()


@pytest.mark.parametrize("name", ASKED)
def test_every_task_finds_its_labels_and_pictures(root, scenes, name):
    items, images = _items(root, name)
    assert len({item.image for item in items}) > NUM * 0.8
    assert len(list(images.iterdir())) == NUM
    assert all(item.gold is not None for item in items)
    first = items[0].image
    assert all((images / item.image).is_file() for item in items)
    picture = Image.open(images / first)
    assert picture.format == "JPEG"
    difference = np.asarray(picture, float) - render(scenes[0]).rgb[0]
    assert np.abs(difference).mean() < 1.5


def test_the_minis_language_model_knows_every_word_that_it_is_asked(root):
    tokenizer = SentencePieceProcessor(model_file=str(ASSETS / "miniature" / "vicuna" / "tokenizer.model"))
    asked = set()
    for name, prompt in ASKED.items():
        asked |= {
            prompt.format(question=item.text.split("\n")[0]) for item in _items(root, name)[0] if "vsr" not in name
        }
    asked |= {row["caption"] for row in _lines(root / "playground/data/eval/vsr/zeroshot/test.jsonl")}
    assert len(asked) > 100
    for text in asked:
        words = text.replace("?", " ?").replace(",", " ,").replace(".", " .").split()
        assert len(tokenizer.encode(text)) == len(words), text


def test_every_published_task_but_textvqa_with_tokens_and_easy_vqa_is_there():
    of_ones_own = {"questions", "questions_likelihood"}
    assert set(TASKS.names()) - set(ASKED) - of_ones_own == {"textvqa_ocr", "easyvqa"}


def test_questions_and_captions_are_those_of_the_held_out_data_set(root, tmp_path):
    write_dataset(tmp_path / "heldout", "heldout", NUM, seed=SEED)
    questions = _lines(tmp_path / "heldout/questions.jsonl")
    items, _ = _items(root, "vqav2")
    assert [item.text.split("\n")[0] for item in items] == [row["text"] for row in questions]
    assert [set(item.gold.answers) for item in items] == [{row["answer"]} for row in questions]
    assert {len(item.gold.answers) for item in items} == {10}
    assert Counter(item.group for item in items)["number"] == NUM
    captions = [row["caption"] for row in _lines(tmp_path / "heldout/captions.jsonl")]
    for name, num in (("coco_caption", 5), ("nocaps", 10)):
        references = [item.gold for item in _items(root, name)[0]]
        assert [known[0] for known in references] == captions
        assert {len(known) for known in references} == {num}


def test_pope_is_true_balanced_and_asks_nothing_twice(root, scenes):
    for split in ("random", "popular", "adversarial"):
        rows = _pope(root, split)
        assert len(rows) == 4 * NUM
        assert [row["question_id"] for row in rows] == list(range(1, len(rows) + 1))
        assert Counter(row["label"] for row in rows) == {"yes": 2 * NUM, "no": 2 * NUM}
        assert len({(row["image"], row["text"]) for row in rows}) == len(rows)
        for row in rows:
            name = row["text"].removeprefix("Is there a ").removesuffix("?")
            there = name in _names(scenes, int(row["image"][-16:-4]) - 1)
            assert row["label"] == ("yes" if there else "no"), row


def test_pope_samples_absent_objects_as_pope_does(root, scenes):
    objects = [_names(scenes, i) for i in range(NUM)]
    frequency = Counter(name for names in objects for name in names)
    together = defaultdict(Counter)
    for names in objects:
        for name in names:
            together[name].update(names - {name})
    ranks = {"popular": lambda name: frequency, "adversarial": lambda name: together[name]}
    for split, rank in ranks.items():
        rows = _pope(root, split)
        names = [row["text"].removeprefix("Is there a ").removesuffix("?") for row in rows]
        for k in range(0, len(rows), 2):
            i = k // 4
            allowed = rank(names[k]).keys() - objects[i] - set(names[4 * i : k])
            best = max((rank(names[k])[name] for name in allowed), default=0)
            assert rank(names[k])[names[k + 1]] == best, (split, k)
    random = [row["text"] for row in _pope(root, "random") if row["label"] == "no"]
    assert len(set(random)) > 12


def test_llavas_pooled_questions_are_those_of_the_splits(root):
    pooled = _lines(root / "playground/data/eval/pope/llava_pope_test.jsonl")
    by_split = {split: [row for row in pooled if row["category"] == split] for split in ("random", "popular")}
    for split, first in (("random", 10_000_001), ("popular", 20_000_001)):
        assert [row["question_id"] for row in by_split[split]] == list(range(first, first + 4 * NUM))
        assert [row["text"] for row in by_split[split]] == [row["text"] for row in _pope(root, split)]
    assert pooled[0]["category"] == "adversarial"


def test_vsr_labels_are_true_of_the_scene(root, scenes):
    rows = _lines(root / "playground/data/eval/vsr/zeroshot/test.jsonl")
    assert 20 < sum(row["label"] for row in rows) < len(rows) - 20
    keys = {
        "right of": lambda t: t.x,
        "left of": lambda t: -t.x,
        "above": lambda t: -t.y,
        "below": lambda t: t.y,
        "in front of": lambda t: t.nearness,
        "behind": lambda t: -t.nearness,
    }
    assert {row["relation"] for row in rows} == set(keys)
    for row in rows:
        by_color = {f"{t.color} object": t for t in language.things(scenes, int(row["image"][:-4]) - 1)}
        key = keys[row["relation"]]
        assert row["label"] == int(key(by_color[row["subj"]]) > key(by_color[row["obj"]])), row
        assert row["subj"] in row["caption"]
        assert row["relation"] in row["caption"]
    assert {item.group for item in _items(root, "vsr")[0]} == {"Projective"}


def test_gqa_has_binary_and_open_questions(root):
    items, _ = _items(root, "gqa")
    assert {item.gold.structural for item in items} == {"verify", "query", "choose", "compare"}
    assert not any(item.gold.answer.isdecimal() for item in items)


@needs_shared
@pytest.mark.parametrize(
    ("ours", "official"),
    [
        *(
            (f"playground/data/eval/pope/coco/coco_pope_{split}.json", f"pope/coco_pope_{split}.json")
            for split in ("random", "popular", "adversarial")
        ),
        ("playground/data/eval/pope/llava_pope_test.jsonl", "llava_eval/pope/llava_pope_test.jsonl"),
        ("playground/data/eval/vsr/zeroshot/test.jsonl", "vsr/zeroshot/test.jsonl"),
    ],
)
def test_fields_are_the_official_ones(root, ours, official):
    row, expected = (_lines(path)[0] for path in (root / ours, SHARED / official))
    assert list(row) == list(expected)
    assert [type(value) for value in row.values()] == [type(value) for value in expected.values()]


def test_a_failed_run_leaves_nothing_and_another_folder_is_kept(tmp_path, monkeypatch):
    write_benchmarks(tmp_path / "old", 2)
    before = _files(tmp_path / "old")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match="not a miniature data set"):
        write_benchmarks(tmp_path / "mine", 2)
    monkeypatch.setattr(benchmarks.benchmark_files, "nocaps", lambda told: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_benchmarks(tmp_path / "old", 3)
    assert _files(tmp_path / "old") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "old"]
    for arguments in ((0, 0), (1, -1)):
        with pytest.raises(ValueError, match="num_scenes must be at least 1"):
            write_benchmarks(tmp_path / "new", *arguments)
