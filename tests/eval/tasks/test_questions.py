import json

import pytest

from helpers.eval_files import write_lines
from tove_lvlm.config import UserError
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.eval.questions import expected_text
from tove_lvlm.eval.tasks.questions import Questions, QuestionsLikelihood

ROWS = [
    {"question_id": "a", "image": "a.png", "text": "What is it?", "answer": "cat", "family": "naming"},
    {"question_id": "b", "image": "b.png", "text": "What is it?", "answer": "ankle boot", "family": "naming"},
    {"question_id": 3, "image": "b.png", "text": "Is it {red}?", "answer": "no", "family": "presence"},
    {"question_id": 4, "image": "b.png", "text": "Is it?", "answer": "no"},
]


@pytest.fixture
def items(tmp_path):
    return Questions().read([write_lines(tmp_path / "questions.jsonl", ROWS)], Problems())


def test_they_are_asked_as_they_stand(items):
    assert [item.question_id for item in items] == ["a", "b", "3", "4"]
    assert items[2].text == "Is it {red}?"
    assert [item.group for item in items] == ["naming", "naming", "presence", ""]
    assert not any(item.choices for item in items)
    assert expected_text(items[1]) == "ankle boot"


def test_exact_match_but_for_case_and_full_stop_overall_and_by_family(items):
    answers = {"a": "Cat.", "b": "boot", "3": " no ", "4": "yes"}
    score = Questions().score(items, answers, "official", Problems())
    assert score.metrics == {"accuracy": 0.5}
    assert score.groups == {"naming": {"accuracy": 0.5, "n": 2}, "presence": {"accuracy": 1.0, "n": 1}}


def test_a_missing_answer_is_wrong_and_noted(items):
    problems = Problems()
    assert Questions().score(items, {"a": "cat"}, "official", problems).metrics == {"accuracy": 0.25}
    assert problems


def test_choices_are_weighed(tmp_path):
    rows = [{**row, "choices": ["cat", "ankle boot", "no"]} for row in ROWS]
    items = QuestionsLikelihood().read([write_lines(tmp_path / "questions.jsonl", rows)], Problems())
    assert {item.choices for item in items} == {("cat", "ankle boot", "no")}


@pytest.mark.parametrize(
    "choices", [None, [], ["cat"], ["cat", "cat"], ["dog", "cow"], ["cat", 3], ["cat", " "], "cat"], ids=str
)
def test_a_row_without_good_choices_is_noted_and_left_out(tmp_path, choices):
    problems = Problems()
    rows = [{**ROWS[0], "choices": choices}, {**ROWS[1], "choices": ["ankle boot", "cat"]}]
    items = QuestionsLikelihood().read([write_lines(tmp_path / "questions.jsonl", rows)], problems)
    assert [item.question_id for item in items] == ["b"]
    assert "row without two `choices` or more that hold the answer" in problems.lines()[0]


def test_a_file_without_one_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no questions in .*: expected rows of `question_id, image, text, answer`"):
        Questions().read([write_lines(tmp_path / "questions.jsonl", [{"text": "?"}])], Problems())


def test_what_the_demo_asks_is_read(tmp_path):
    from tove_lvlm.world.dataset import write_dataset

    write_dataset(tmp_path / "heldout", split="heldout", num_scenes=2, seed=0)
    lines = (tmp_path / "heldout" / "questions.jsonl").read_text().splitlines()
    items = Questions().read([tmp_path / "heldout" / "questions.jsonl"], Problems())
    assert [item.gold.answer for item in items] == [json.loads(line)["answer"] for line in lines]
