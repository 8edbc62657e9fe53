import pytest

from helpers.eval_files import write_json, write_lines
from tove_lvlm.eval.io.answers import Answer, match
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.eval.tasks.vizwiz import VizWiz

ASK = (
    "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
    "\nAnswer the question using a single word or phrase."
)


def row(number: int, *answers: str, **more) -> dict:
    people = [{"answer": answer, "answer_confidence": "yes"} for answer in answers]
    return {"image": f"VizWiz_val_{number:08d}.jpg", "question": "What is this?", "answers": people, **more}


ROWS = [
    row(0, *["king's cross"] * 10, answer_type="other", answerable=1),
    row(1, *["unanswerable"] * 8, "cup", "mug", answer_type="unanswerable", answerable=0),
    row(2, *["unsuitable"] * 10, answer_type="unanswerable", answerable=0),
    row(3, *["cup"] * 3, *["mug"] * 7, answer_type="other", answerable=1),
]
ANSWERS = {
    "VizWiz_val_00000000.jpg": "King's Cross",
    "VizWiz_val_00000001.jpg": "Unanswerable.",
    "VizWiz_val_00000002.jpg": "a cup",
    "VizWiz_val_00000003.jpg": "Cup",
}


def test_items_are_called_by_their_image(tmp_path):
    problems = Problems()
    items = VizWiz().read([write_json(tmp_path / "val.json", ROWS)], problems)
    assert not problems
    assert items[3].question_id == items[3].image == "VizWiz_val_00000003.jpg"
    assert items[3].text == "What is this?" + ASK
    assert match(items, [Answer("VizWiz_val_00000003", "x")], problems) == {"VizWiz_val_00000003.jpg": "x"}


@pytest.mark.parametrize("convention", ["m4c", "official"])
def test_soft_accuracy_and_answerability(tmp_path, convention):
    items = VizWiz().read([write_json(tmp_path / "val.json", ROWS)], Problems())
    score = VizWiz().score(items, ANSWERS, convention, Problems())
    assert score.metrics == {
        "accuracy": round((100 + 100 + 0 + 90) / 4, 2),
        "unanswerable_average_precision": round(100 * (0.5 * 1.0 + 0.5 * 0.5), 2),
        "unanswerable_f1": round(100 * 2 / 3, 2),
    }
    assert score.groups == {
        "answer_type/other": {"accuracy": 95.0, "n": 2},
        "answer_type/unanswerable": {"accuracy": 50.0, "n": 2},
    }


def test_the_conventions_differ_in_what_a_comma_becomes(tmp_path):
    items = VizWiz().read([write_json(tmp_path / "val.json", [row(0, *["red blue"] * 10)])], Problems())
    answers = {"VizWiz_val_00000000.jpg": "red,blue"}
    accuracies = {name: VizWiz().score(items, answers, name, Problems()).metrics for name in VizWiz.conventions}
    assert accuracies == {"m4c": {"accuracy": 0.0}, "official": {"accuracy": 100.0}}


def test_without_answerable_labels_there_are_no_such_figures(tmp_path):
    rows = [ROWS[0], row(5, *["cup"] * 10)]
    items = VizWiz().read([write_json(tmp_path / "val.json", rows)], Problems())
    problems = Problems()
    score = VizWiz().score(items, {"VizWiz_val_00000005.jpg": "cup"}, "m4c", problems)
    assert score.metrics == {"accuracy": 50.0}
    assert problems["missing answer"] == ["VizWiz_val_00000000.jpg"]


def test_where_all_is_answerable_nothing_is_said_of_the_unanswerable(tmp_path):
    items = VizWiz().read([write_json(tmp_path / "val.json", [ROWS[0], ROWS[3]])], Problems())
    score = VizWiz().score(items, ANSWERS, "m4c", Problems())
    assert score.metrics == {"accuracy": 95.0}
    assert score.notes == ("every question is answerable: no figures for unanswerable ones",)


def test_the_upload_is_what_llavas_converter_writes(tmp_path):
    rows = [
        {"question_id": "q0", "image": "VizWiz_test_00000000.jpg", "text": "What is this?" + ASK},
        {"question_id": "q1", "image": "VizWiz_test_00000001.jpg", "text": "What is this?" + ASK},
    ]
    items = VizWiz().read([write_lines(tmp_path / "llava_test.jsonl", rows)], Problems())
    assert [item.gold for item in items] == [None, None]
    assert VizWiz().upload(items, {"q1": "The Can, opened"}) == [
        {"image": "VizWiz_test_00000000.jpg", "answer": ""},
        {"image": "VizWiz_test_00000001.jpg", "answer": "can opened"},
    ]


def test_bad_rows_are_named(tmp_path):
    rows = [row(0, *["x"] * 9), row(1), {"question": "?"}, row(2, *["x"] * 10), row(2, *["x"] * 10)]
    problems = Problems()
    items = VizWiz().read([write_json(tmp_path / "val.json", rows)], problems)
    assert [item.image for item in items] == ["VizWiz_val_00000000.jpg", "VizWiz_val_00000002.jpg"]
    assert problems.as_dict() == {
        "question with fewer than ten annotators": {"count": 1, "first": ["val.json:1"]},
        "question without annotators": {"count": 1, "first": ["val.json:2"]},
        "row without `image`": {"count": 1, "first": ["val.json:3"]},
        "duplicate question id": {"count": 1, "first": ["VizWiz_val_00000002.jpg"]},
    }
