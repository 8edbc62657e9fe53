import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.eval_files import shared, write_json, write_lines
from tove_lvlm.config import UserError
from tove_lvlm.eval.io.answers import Answer, match, read_answers
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.eval.io.store import Shard, Store
from tove_lvlm.eval.tasks.pope import Pope

SPLITS = ("random", "popular", "adversarial")
ASK = "\nAnswer the question using a single word or phrase."


def official_files(release: str = "@e3e3926"):
    return [shared(f"pope/coco_pope_{split}{release}.json") for split in SPLITS]


def llava_answers(problems):
    return read_answers(shared("llava_eval/pope/answers/llava-v1.5-13b.jsonl"), problems)


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_llava_13b_scores_what_it_published(order):
    problems, task = Problems(), Pope()
    items = task.read(official_files()[order], problems)
    texts = match(items, llava_answers(problems), problems)
    score = task.score(items, texts, "official", problems)
    assert not problems
    assert score.num_items == score.metrics["n"] == 8910
    assert score.metrics["mean_f1"] == pytest.approx(0.8594688, abs=1e-7)
    counts = {split: [score.groups[split][name] for name in ("tp", "fp", "tn", "fn", "n")] for split in SPLITS}
    assert counts == {
        "random": [1182, 31, 1379, 318, 2910],
        "popular": [1182, 59, 1441, 318, 3000],
        "adversarial": [1182, 117, 1383, 318, 3000],
    }
    rates = {
        split: [score.groups[split][name] for name in ("accuracy", "precision", "recall", "f1", "yes_ratio")]
        for split in SPLITS
    }
    assert rates["random"] == pytest.approx([0.8800687, 0.9744435, 0.788, 0.8713601, 0.4168385], abs=1e-7)
    assert rates["popular"] == pytest.approx([0.8743333, 0.9524577, 0.788, 0.8624590, 0.4136667], abs=1e-7)
    assert rates["adversarial"] == pytest.approx([0.855, 0.9099307, 0.788, 0.8445874, 0.433], abs=1e-7)
    assert {type(value) for value in score.metrics.values()} <= {int, float}


def test_one_split_alone_takes_the_label_files_own_numbers():
    """ "Yes" and "No" by the books of the label file, under its ids: all right."""
    path = official_files()[0]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    answers = [Answer(str(row["question_id"]), row["label"].capitalize()) for row in reversed(rows)]
    problems = Problems()
    items = Pope().read([path], problems)
    score = Pope().score(items, match(items, answers, problems), "official", problems)
    assert not problems
    assert (score.metrics["accuracy"], score.metrics["tp"], score.metrics["tn"]) == (1.0, 1500, 1410)


def test_the_newer_release_has_3000_random_rows_and_llavas_answers_to_the_older_do_not_pass_for_its_own():
    problems = Problems()
    items = Pope().read(official_files(""), problems)
    assert [sum(item.group == split for item in items) for split in SPLITS] == [3000] * 3
    texts = match(items, llava_answers(problems), problems)
    Pope().score(items, texts, "official", problems)
    assert len(problems["missing answer"]) == 90
    assert sum(question.startswith("random/") for question in problems["answer to another question"]) > 2800


def test_llavas_question_file_asks_the_same_under_the_same_names():
    problems = Problems()
    asked = Pope().read([shared("llava_eval/pope/llava_pope_test.jsonl")], problems)
    labelled = {item.question_id: item for item in Pope().read(official_files(), problems)}
    assert not problems
    assert len(asked) == len(labelled) == 8910
    for item in asked:
        same = labelled[item.question_id]
        assert (item.image, item.text, item.group, item.aliases) == (same.image, same.text, same.group, same.aliases)
        assert item.gold is None


def test_llavas_own_script_scores_the_answers_that_a_run_writes(tmp_path):
    """LLaVA-1.5-13B's answers, written as a run of ours writes them."""
    (tmp_path / "coco").mkdir()
    for split in SPLITS:
        (tmp_path / "coco" / f"coco_pope_{split}.json").symlink_to(shared(f"pope/coco_pope_{split}@e3e3926.json"))
    questions = shared("llava_eval/pope/llava_pope_test.jsonl")
    items = Pope().read(sorted((tmp_path / "coco").iterdir()), Problems())
    texts = match(items, llava_answers(Problems()), Problems())
    store = Store(tmp_path / "run", items)
    store.prepare({})
    with Shard(store.folder, 0, "1", "llava") as shard:
        for item in reversed(items):
            shard.write(item, texts[item.question_id], {})
    assert list(store.gather()) == [item.question_id for item in items]
    assert store.prepare({}) == {item.question_id for item in items}
    script = Path(importlib.util.find_spec("llava").origin).parent / "eval" / "eval_pope.py"
    data_locations = ["--annotation-dir", tmp_path / "coco", "--question-file", questions]
    done = subprocess.run(
        [sys.executable, script, *data_locations, "--result-file", store.folder / "answers.jsonl"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    counts = "1182\t31\t1379\t318", "1182\t59\t1441\t318", "1182\t117\t1383\t318"
    assert all(line in done.stdout.splitlines() for line in counts)


def row(number: int, label="yes", **changes) -> dict:
    return {"question_id": number, "image": "a.jpg", "text": f"Is there a dog {number}?", "label": label} | changes


@pytest.mark.parametrize("write", [write_lines, write_json])
def test_lines_and_arrays_are_read_alike(tmp_path, write):
    items = Pope().read([write(tmp_path / "coco_pope_popular.json", [row(1), row(2, "no")])], Problems())
    assert [(item.question_id, item.gold, item.image, item.text) for item in items] == [
        ("popular/1", True, "a.jpg", "Is there a dog 1?" + ASK),
        ("popular/2", False, "a.jpg", "Is there a dog 2?" + ASK),
    ]
    assert items[0].aliases == ("20000001", "1")


def test_bad_rows_are_named_and_left_out(tmp_path):
    path = tmp_path / "coco_pope_random.json"
    write_lines(path, [row(1), row(2, "maybe"), row(1), {"question_id": 4, "text": "?", "label": "no"}, row(5)])
    with path.open("a") as file:
        file.write('{"question_id": 6, "ima')
    problems = Problems()
    items = Pope().read([path], problems)
    assert [item.question_id for item in items] == ["random/1", "random/5"]
    assert problems["label neither yes nor no"] == ["coco_pope_random.json:2"]
    assert problems["duplicate question id"] == ["random/1"]
    assert problems["row without `image`"] == ["coco_pope_random.json:4"]
    assert problems["unreadable line"] == ["coco_pope_random.json:6"]
    with pytest.raises(UserError, match="--strict.*label neither yes nor no"):
        problems.refuse()


def test_rows_without_ids_are_taken_in_order(tmp_path):
    items = Pope().read([write_lines(tmp_path / "coco_pope_random.json", [row(1), row(2, "no")])], Problems())
    answers = write_json(
        tmp_path / "answers.json",
        [{"question": "Is there a dog 1?", "answer": "Yes."}, {"question": "Is there a dog 2?", "answer": "Yes."}],
    )
    problems = Problems()
    texts = match(items, read_answers(answers, problems), problems)
    score = Pope().score(items, texts, "official", problems)
    assert not problems
    assert [score.metrics[name] for name in ("tp", "fp", "tn", "fn")] == [1, 1, 0, 0]


def test_missing_empty_and_vague_answers_are_named_and_no_metric_gains(tmp_path):
    path = write_lines(tmp_path / "coco_pope_random.json", [row(at, "yes" if at % 2 else "no") for at in range(1, 7)])
    items = Pope().read([path], Problems())
    texts = {"random/1": "yes", "random/2": "no", "random/3": "", "random/4": "", "random/5": "perhaps"}
    problems = Problems()
    official = Pope().score(items, texts, "official", problems).metrics
    assert [official[name] for name in ("tp", "fp", "tn", "fn", "undecided")] == [3, 1, 1, 0, 1]
    assert problems["missing answer"] == ["random/6"]
    assert problems["empty prediction"] == ["random/3", "random/4"]
    assert not problems["answer neither yes nor no"]
    lmms = Pope().score(items, texts, "lmms-eval", problems).metrics
    assert [lmms[name] for name in ("tp", "fp", "tn", "fn", "undecided")] == [1, 0, 1, 0, 4]
    assert problems["answer neither yes nor no"] == ["random/5"]
    kit = Pope().score(items, texts, "vlmevalkit", Problems()).metrics
    assert [kit[name] for name in ("tp", "fp", "tn", "fn", "undecided")] == [1, 0, 1, 2, 2]


def test_a_file_that_is_no_split_and_one_that_is_not_of_pope(tmp_path):
    with pytest.raises(UserError, match="which split of POPE"):
        Pope().read([write_lines(tmp_path / "labels.json", [row(1)])], Problems())
    with pytest.raises(UserError, match="no questions in .*random.json: expected .*row without `image`"):
        Pope().read([write_lines(tmp_path / "random.json", [{"question_id": 1}])], Problems())
