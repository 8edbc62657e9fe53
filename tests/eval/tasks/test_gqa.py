import pytest

from helpers.eval_files import write_json, write_lines
from tove_lvlm.config import UserError
from tove_lvlm.eval.io.answers import Answer, match
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.eval.tasks.gqa import Gqa

ASK = "\nAnswer the question using a single word or phrase."


def question(answer: str, structural: str, semantic: str, **more) -> dict:
    types = {"detailed": "x", "structural": structural, "semantic": semantic}
    return {"imageId": "n161313", "question": "Is it?", "answer": answer, "types": types, "isBalanced": True, **more}


QUESTIONS = {
    "201307251": question("yes", "verify", "obj"),
    "201640614": question("left", "choose", "rel"),
    "202225914": question("light blue", "query", "attr"),
    "202225915": question("no", "verify", "attr"),
    "999": question("no", "verify", "attr", isBalanced=False),
}
ANSWERS = {"201307251": "Yes.", "201640614": "right", "202225914": "Light blue", "202225915": "no!"}


@pytest.fixture
def items(tmp_path):
    return Gqa().read([write_json(tmp_path / "testdev_balanced_questions.json", QUESTIONS)], Problems())


def test_only_balanced_questions_are_asked(items):
    assert [item.question_id for item in items] == list(ANSWERS)
    assert items[0].image == "n161313.jpg"
    assert items[0].text == "Is it?" + ASK
    assert [item.group for item in items] == ["binary", "binary", "open", "binary"]


def test_accuracy_overall_and_by_type(items):
    score = Gqa().score(items, ANSWERS, "official", Problems())
    assert score.metrics == {"accuracy": 50.0}
    assert score.groups == {
        "binary": {"accuracy": pytest.approx(100 / 3), "n": 3},
        "open": {"accuracy": 100.0, "n": 1},
        "semantic/attr": {"accuracy": 50.0, "n": 2},
        "semantic/obj": {"accuracy": 100.0, "n": 1},
        "semantic/rel": {"accuracy": 0.0, "n": 1},
        "structural/choose": {"accuracy": 0.0, "n": 1},
        "structural/query": {"accuracy": 100.0, "n": 1},
        "structural/verify": {"accuracy": 50.0, "n": 2},
    }


def test_lmms_eval_forgives_punctuation_and_reports_fractions(items):
    assert Gqa().score(items, ANSWERS, "lmms-eval", Problems()).metrics == {"accuracy": 0.75}


def test_missing_answers_are_wrong_and_named(items):
    problems = Problems()
    score = Gqa().score(items, {"201307251": "yes", "201640614": ""}, "official", problems)
    assert score.metrics == {"accuracy": 25.0}
    assert problems["missing answer"] == ["202225914", "202225915"]
    assert problems["empty prediction"] == ["201640614"]


def test_the_upload_goes_through_the_official_script_and_back_through_ours(items):
    upload = Gqa().upload(items, ANSWERS | {"202225915": "No."})
    assert upload[2] == {"questionId": "202225914", "prediction": "light blue"}
    rows = [Answer(row["questionId"], row["prediction"]) for row in upload]
    assert Gqa().score(items, match(items, rows, Problems()), "official", Problems()).metrics == {"accuracy": 75.0}


def test_llavas_question_file_is_asked_as_it_stands(tmp_path):
    rows = [{"question_id": "201307251", "image": "n161313.jpg", "text": "Is it?" + ASK, "category": "default"}]
    (item,) = Gqa().read([write_lines(tmp_path / "llava.jsonl", rows)], Problems())
    assert (item.question_id, item.image, item.text, item.gold) == ("201307251", "n161313.jpg", "Is it?" + ASK, None)


def test_bad_questions_are_named(tmp_path):
    problems = Problems()
    path = write_json(tmp_path / "q.json", {"1": {"question": "?", "imageId": "2", "answer": "no"}, "2": 5, "3": {}})
    (item,) = Gqa().read([path], problems)
    assert (item.gold.groups(), item.group) == ([], "")
    assert problems["row without `question`"] == ["q.json:2", "q.json:3"]
    with pytest.raises(UserError, match="no questions in"):
        Gqa().read([write_json(tmp_path / "p.json", {"data": []})], Problems())
