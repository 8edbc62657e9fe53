"""What a record says: hashes of what was asked and scored, and only of that."""

import hashlib

import pytest
from eval_files import write_json, write_lines

from tove_lvlm.config import UserError
from tove_lvlm.eval import record
from tove_lvlm.eval.benchmark import read_benchmark
from tove_lvlm.eval.task import Item

ROWS = [{"question_id": 1, "image": "a.jpg", "text": "Is there a dog?", "label": "yes"}]


@pytest.fixture
def benchmark(tmp_path):
    return read_benchmark("pope", [write_lines(tmp_path / "coco_pope_random.json", ROWS)])


def test_it_says_how_the_score_was_made(benchmark):
    score = benchmark.score({"random/1": "yes"})
    found = record.score_record(benchmark, score, answers={"n": 1}, made_by={"model": {"id": "m"}, "dtype": "float32"})
    labels = benchmark.labels[0].read_bytes()
    assert found["labels"] == {"coco_pope_random.json": hashlib.sha256(labels).hexdigest()}
    assert found["prompt"]["sha256"] == hashlib.sha256(benchmark.task.prompt.encode()).hexdigest()
    assert (found["task"], found["convention"], found["ocr"], found["limit"]) == ("pope", "official", False, None)
    assert (found["model"], found["dtype"]) == ({"id": "m"}, "float32")
    assert found["metrics"]["tp"] == 1
    assert {"python", "torch", "transformers"} <= set(found["versions"])


def test_without_labels_there_is_no_score(benchmark):
    found = record.score_record(benchmark, None, answers={})
    assert found["metrics"] == {}
    assert found["notes"] == ["no public labels: not scored"]
    assert "cores" in found["hardware"]


def test_questions_are_the_same_in_any_order_and_no_other():
    items = [Item(question_id=str(n), image=f"{n}.jpg", text="what?") for n in range(3)]
    first = record.questions_sha256(items)
    assert record.questions_sha256(items[::-1]) == first
    assert record.questions_sha256(items[:2]) != first
    assert record.questions_sha256([*items[:2], Item(question_id="2", image="2.jpg", text="where?")]) != first


def test_a_record_is_read_from_its_file_or_folder(benchmark, tmp_path):
    found = record.score_record(benchmark, None, answers={})
    assert record.save(tmp_path / "out", found) == tmp_path / "out" / "record.json"
    assert record.load(tmp_path / "out") == record.load(tmp_path / "out" / "record.json") == found
    with pytest.raises(UserError, match="does not exist"):
        record.load(tmp_path / "none.json")
    with pytest.raises(UserError, match="no score record"):
        record.load(write_json(tmp_path / "x.json", {"metrics": {}}))
