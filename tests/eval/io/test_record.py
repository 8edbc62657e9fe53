"""Records on disk, and the hash of what was asked."""

import pytest

from helpers.eval_files import write_json, write_lines
from tove_lvlm.config import UserError
from tove_lvlm.eval.benchmark import read_benchmark
from tove_lvlm.eval.io import record
from tove_lvlm.eval.io.items import Item
from tove_lvlm.eval.run import score_record

ROWS = [{"question_id": 1, "image": "a.jpg", "text": "Is there a dog?", "label": "yes"}]


@pytest.fixture
def benchmark(tmp_path):
    return read_benchmark("pope", [write_lines(tmp_path / "coco_pope_random.json", ROWS)])


def test_questions_are_the_same_in_any_order_and_no_other():
    items = [Item(question_id=str(n), image=f"{n}.jpg", text="what?") for n in range(3)]
    first = record.questions_sha256(items)
    assert record.questions_sha256(items[::-1]) == first
    assert record.questions_sha256(items[:2]) != first
    assert record.questions_sha256([*items[:2], Item(question_id="2", image="2.jpg", text="where?")]) != first


def test_a_record_is_read_from_its_file_or_folder(benchmark, tmp_path):
    found = score_record(benchmark, None, answers={})
    assert record.save(tmp_path / "out", found) == tmp_path / "out" / "record.json"
    assert record.load(tmp_path / "out") == record.load(tmp_path / "out" / "record.json") == found
    with pytest.raises(UserError, match="does not exist"):
        record.load(tmp_path / "none.json")
    with pytest.raises(UserError, match="no score record"):
        record.load(write_json(tmp_path / "x.json", {"metrics": {}}))
