import json

import pytest

from tove_lvlm.config import UserError
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.eval.tasks.easyvqa import EasyVqa

ASK = "\nAnswer the question using a single word or phrase."
TRIPLES = [["what color is the shape?", "blue", 7], ["is there a circle?", "no", 7], ["is there no circle?", "yes", 8]]


def read(folder, content, problems):
    file = folder / "test" / "questions.json"
    file.parent.mkdir()
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return EasyVqa().read([file], problems)


def test_triples_of_the_package(tmp_path):
    items = read(tmp_path, TRIPLES, Problems())
    assert [item.question_id for item in items] == ["test/0", "test/1", "test/2"]
    assert [item.image for item in items] == ["7.png", "7.png", "8.png"]
    assert items[0].text == "what color is the shape?" + ASK
    assert [item.group for item in items] == ["open", "yes/no", "yes/no"]


def test_exact_match(tmp_path):
    answers = {"test/0": "Blue.", "test/1": "no", "test/2": "no"}
    score = EasyVqa().score(read(tmp_path, TRIPLES, Problems()), answers, "official", Problems())
    assert score.metrics == {"accuracy": pytest.approx(2 / 3)}
    assert score.groups == {"open": {"accuracy": 1.0, "n": 1}, "yes/no": {"accuracy": 0.5, "n": 2}}


def test_rows_of_another_form_are_noted(tmp_path):
    problems = Problems()
    assert len(read(tmp_path, [*TRIPLES, ["?", "yes"], ["?", "yes", True], {"question": "?"}], problems)) == 3
    assert len(problems["row that is no question, answer and number of a picture"]) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [('[["a"', "perhaps it is truncated"), ({"a": 1}, "expected a list of questions"), ([], "no questions in")],
)
def test_other_files_are_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, content, Problems())
