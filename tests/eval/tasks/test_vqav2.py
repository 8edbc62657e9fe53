import pytest

from helpers.eval_files import write_json, write_lines
from tove_lvlm.config import UserError
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.eval.tasks.vqav2 import VqaV2

ASK = "\nAnswer the question using a single word or phrase."


def people(*answers: str) -> list[dict]:
    return [{"answer": answer, "answer_confidence": "yes", "answer_id": at} for at, answer in enumerate(answers, 1)]


def question(number: int, text: str = "Where?") -> dict:
    return {"image_id": number // 1000, "question": text, "question_id": number}


def annotation(number: int, *answers: str, answer_type="other", question_type="where") -> dict:
    return {
        "question_id": number,
        "image_id": number // 1000,
        "question_type": question_type,
        "answer_type": answer_type,
        "multiple_choice_answer": answers[0] if answers else "",
        "answers": people(*answers),
    }


YES = ("yes",) * 10
MIXED = ("Down.", *("down",) * 6, "table", "at table", "skateboard")


@pytest.fixture
def files(tmp_path):
    questions = {"data_subtype": "val2014", "questions": [question(262148000), question(393225001), question(42002)]}
    annotations = {
        "annotations": [
            annotation(42002, *("2",) * 9, "two", answer_type="number", question_type="how many"),
            annotation(262148000, *MIXED),
            annotation(393225001, *YES, answer_type="yes/no", question_type="is it"),
        ]
    }
    return [write_json(tmp_path / "q.json", questions), write_json(tmp_path / "a.json", annotations)]


def test_questions_and_annotations_become_items_in_the_questions_order(files):
    problems = Problems()
    first, second, third = VqaV2().read(files, problems)
    assert not problems
    assert (first.question_id, first.image, first.text) == (
        "262148000",
        "COCO_val2014_000000262148.jpg",
        "Where?" + ASK,
    )
    assert first.gold.answers == MIXED
    assert [item.group for item in (first, second, third)] == ["other", "yes/no", "number"]
    assert third.image == "COCO_val2014_000000000042.jpg"


ANSWERS = {"262148000": "the table", "393225001": "Yes", "42002": "Two"}


def test_official_scores_are_rounded_percents_with_unanimous_answers_as_they_are(files):
    items = VqaV2().read(files, Problems())
    score = VqaV2().score(items, ANSWERS, "official", Problems())
    assert score.metrics == {"accuracy": round((30 + 0 + 100) / 3, 2)}
    assert score.groups == {
        "answer_type/number": {"accuracy": 100.0, "n": 1},
        "answer_type/other": {"accuracy": 30.0, "n": 1},
        "answer_type/yes/no": {"accuracy": 0.0, "n": 1},
        "question_type/how many": {"accuracy": 100.0, "n": 1},
        "question_type/is it": {"accuracy": 0.0, "n": 1},
        "question_type/where": {"accuracy": 30.0, "n": 1},
    }


def test_lmms_eval_always_normalises_and_reports_fractions(files):
    items = VqaV2().read(files, Problems())
    score = VqaV2().score(items, ANSWERS, "lmms-eval", Problems())
    assert score.metrics == {"accuracy": pytest.approx((0.3 + 1 + 1) / 3)}
    assert score.groups["answer_type/yes/no"] == {"accuracy": 1.0, "n": 1}


def test_a_missing_answer_is_named_and_wrong(files):
    items = VqaV2().read(files, Problems())
    problems = Problems()
    score = VqaV2().score(items, {"42002": "2", "393225001": ""}, "official", problems)
    assert score.metrics == {"accuracy": 33.33}
    assert problems["missing answer"] == ["262148000"]
    assert problems["empty prediction"] == ["393225001"]


def test_what_does_not_fit_together_is_named(tmp_path):
    questions = {"questions": [question(1000), question(2000), question(1000), question(4000), {"question_id": 5}]}
    annotations = {
        "annotations": [
            annotation(1000, *YES),
            annotation(1000, *YES),
            annotation(3000, *YES),
            annotation(4000, "yes", "no"),
            annotation(2000),
        ]
    }
    problems = Problems()
    files = [write_json(tmp_path / "q.json", questions), write_json(tmp_path / "a.json", annotations)]
    assert [item.question_id for item in VqaV2().read(files, problems)] == ["1000", "4000"]
    assert problems.as_dict() == {
        "duplicate annotation": {"count": 1, "first": ["1000"]},
        "question with fewer than ten annotators": {"count": 1, "first": ["a.json annotations:4"]},
        "question without annotators": {"count": 1, "first": ["a.json annotations:5"]},
        "question without annotation": {"count": 1, "first": ["2000"]},
        "row without `question`": {"count": 1, "first": ["q.json questions:5"]},
        "annotation without question": {"count": 1, "first": ["3000"]},
        "duplicate question id": {"count": 1, "first": ["1000"]},
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [({"images": []}, "is not of VQAv2"), ({"questions": 5}, "no questions in .*no array of rows")],
)
def test_another_file_is_refused(tmp_path, content, says):
    with pytest.raises(UserError, match=says):
        VqaV2().read([write_json(tmp_path / "x.json", content)], Problems())


@pytest.mark.parametrize("subset", ["test-dev2015", "test2015"])
def test_test_questions_have_no_labels_and_their_images_are_test2015(tmp_path, subset):
    path = write_json(tmp_path / "q.json", {"data_subtype": subset, "questions": [question(262144000)]})
    (item,) = VqaV2().read([path], Problems())
    assert (item.image, item.gold) == ("COCO_test2015_000000262144.jpg", None)
    with pytest.raises(UserError, match="no labels to score with"):
        VqaV2().score([item], {}, "official", Problems())


def test_the_upload_is_what_llavas_converter_writes(tmp_path):
    rows = [
        {"question_id": 262144000, "image": "a.jpg", "text": "Is it?" + ASK, "category": "default"},
        {"question_id": 262144001, "image": "a.jpg", "text": "Whose?" + ASK, "category": "default"},
        {"question_id": 262144002, "image": "b.jpg", "text": "How many?" + ASK, "category": "default"},
    ]
    items = VqaV2().read([write_lines(tmp_path / "llava.jsonl", rows)], Problems())
    assert items[1].text == "Whose?" + ASK
    assert VqaV2().upload(items, {"262144000": "Yes.", "262144001": "The king's"}) == [
        {"question_id": 262144000, "answer": "yes"},
        {"question_id": 262144001, "answer": "king 's"},
        {"question_id": 262144002, "answer": ""},
    ]
    one = VqaV2().read([write_lines(tmp_path / "one.jsonl", rows[:1])], Problems())
    assert [item.question_id for item in one] == ["262144000"]
