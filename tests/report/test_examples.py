"""Right and wrong answers of an evaluation, with their pictures."""

import base64
import io

import pytest
from PIL import Image

from helpers.report_files import make_evaluation, make_labels
from tove_lvlm.config import UserError
from tove_lvlm.eval.io import record
from tove_lvlm.report.examples import SIDE, find_examples
from tove_lvlm.report.findings import Evaluation

# The label of an odd question is no, that of an even one yes.
TEXTS = {1: "yes", 2: "yes", 3: "No, there is none.", 4: "no", 5: "no"}
RIGHT, WRONG = {2, 3, 5}, {1, 4}


@pytest.fixture
def labels(tmp_path):
    return make_labels(tmp_path / "data")


@pytest.fixture
def evaluation(tmp_path, labels):
    folder = make_evaluation(tmp_path / "eval", labels, TEXTS)
    return Evaluation(folder=folder, record=record.load(folder))


def numbers(examples, is_right):
    return {int(one.question.split()[-1].rstrip("?")) for one in examples.shown if one.is_right == is_right}


def picture(example):
    kind, _, content = example.picture.partition(";base64,")
    return kind, Image.open(io.BytesIO(base64.b64decode(content)))


def test_right_and_wrong_answers_are_told_apart(tmp_path, evaluation):
    examples = find_examples(evaluation, tmp_path / "data", 4)
    assert (numbers(examples, True), numbers(examples, False), examples.note) == (RIGHT, WRONG, "")
    first = next(one for one in examples.shown if one.question == "Is there a thing 4?")
    assert (first.expected, first.answer) == ("yes", "no")
    few = find_examples(evaluation, tmp_path / "data", 1)
    assert [one.is_right for one in few.shown] == [True, False]
    assert few == find_examples(evaluation, tmp_path / "data", 1)


def test_large_pictures_are_reduced_and_small_ones_kept(tmp_path, evaluation):
    by_question = {one.question: one for one in find_examples(evaluation, tmp_path / "data", 4).shown}
    kind, large = picture(by_question["Is there a thing 1?"])
    assert (kind, large.size) == ("data:image/jpeg", (SIDE, SIDE // 2))
    kind, small = picture(by_question["Is there a thing 2?"])
    assert (kind, small.size) == ("data:image/png", (40, 20))


def test_a_picture_that_is_not_there_is_left_out(tmp_path, evaluation):
    (tmp_path / "data" / "val2014" / "4.jpg").unlink()
    by_question = {one.question: one for one in find_examples(evaluation, tmp_path / "data", 4).shown}
    assert by_question["Is there a thing 4?"].picture == ""


def test_why_there_are_none(tmp_path, labels, evaluation):
    assert "Give --data" in find_examples(evaluation, None, 4).note
    (tmp_path / "empty").mkdir()
    assert "pope is not below" in find_examples(evaluation, tmp_path / "empty", 4).note
    with pytest.raises(UserError, match="does not exist"):
        find_examples(evaluation, tmp_path / "absent", 4)
    labels.write_text(labels.read_text().replace("yes", "no"))
    assert "are not those that this score was made with" in find_examples(evaluation, tmp_path / "data", 4).note
    (evaluation.folder / "answers.jsonl").unlink()
    assert "There is no answers.jsonl" in find_examples(evaluation, tmp_path / "data", 4).note
