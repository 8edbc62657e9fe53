import logging

import pytest

from helpers.eval_files import write_json, write_lines
from tove_lvlm.config import UserError
from tove_lvlm.eval.io.answers import Answer, match, question_key, read_answers, texts_of
from tove_lvlm.eval.io.items import Item
from tove_lvlm.eval.io.problems import Problems


def item(question_id: str, text: str = "", **fields) -> Item:
    return Item(question_id=question_id, image="i.jpg", text=text, **fields)


ITEMS = [item("1", "Is it red?\nAnswer."), item("2", "Is it blue?\nAnswer."), item("3", "Is it big?\nAnswer.")]


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        (
            {"question_id": 7, "prompt": "Q?", "text": "No", "answer_id": "x", "model_id": "m", "metadata": {}},
            Answer("7", "No", "Q?"),
        ),
        ({"question_id": 7, "answer": "no"}, Answer("7", "no")),
        ({"questionId": "201", "prediction": "no"}, Answer("201", "no")),
        ({"image": "v.jpg", "answer": "no"}, Answer("v.jpg", "no")),
        ({"image_id": 12, "caption": "A dog."}, Answer("12", "A dog.")),
        ({"question": "Q?", "answer": "no"}, Answer(None, "no", "Q?")),
        ({"question_id": 7, "text": None}, Answer("7", "")),
        ({"question_id": 7, "text": 4}, Answer("7", "4")),
        ({"question_id": None, "text": "no"}, Answer(None, "no")),
    ],
)
def test_every_form_of_row_is_read(tmp_path, row, answer):
    assert read_answers(write_lines(tmp_path / "a.jsonl", [row]), Problems()) == [answer]
    assert read_answers(write_json(tmp_path / "a.json", [row]), Problems()) == [answer]


def test_rows_without_an_answer_are_noted_and_a_file_without_any_is_refused(tmp_path):
    problems = Problems()
    rows = [{"question_id": 1}, {"question_id": 2, "text": "no"}, {"question_id": 3, "answer": ["no"]}]
    assert read_answers(write_lines(tmp_path / "a.jsonl", rows), problems) == [Answer("2", "no")]
    assert problems["row without an answer"] == ["a.jsonl:1", "a.jsonl:3"]
    with pytest.raises(UserError, match="holds no answer"):
        read_answers(write_lines(tmp_path / "b.jsonl", [{"question_id": 1}]), Problems())


def test_ids_decide_whatever_the_order():
    problems = Problems()
    assert match(ITEMS, [Answer("3", "c"), Answer("1", "a")], problems) == {"3": "c", "1": "a"}
    assert not problems


def test_an_extra_and_a_duplicate_answer_are_noted_and_the_last_one_counts():
    problems = Problems()
    answers = [Answer("1", "a"), Answer("9", "x"), Answer("1", "b"), Answer(None, "y")]
    assert match(ITEMS, answers, problems) == {"1": "b"}
    assert problems["answer to an unknown question"] == ["9", "None"]
    assert problems["duplicate answer"] == ["1"]


def test_without_ids_rows_and_questions_are_paired_in_order_and_a_warning_says_so(caplog):
    problems = Problems()
    answers = [Answer(None, text, prompt) for text, prompt in (("a", "Is it red?"), ("b", "Is it blue? Yes or no."))]
    with caplog.at_level(logging.WARNING):
        assert match(ITEMS[:2], answers, problems) == {"1": "a", "2": "b"}
    assert "2 rows are matched in order" in caplog.text
    assert not problems


def test_in_order_foreign_ids_and_prompts_of_other_questions_are_noted():
    problems = Problems()
    answers = [Answer("x1", "a", "Is it blue?"), Answer("x2", "b", "Is it blue?"), Answer("x3", "c")]
    assert match(ITEMS, answers, problems) == {"1": "a", "2": "b", "3": "c"}
    assert problems["unknown id, matched in order"] == ["x1", "x2", "x3"]
    assert problems["answer to another question"] == ["1"]


def test_neither_ids_nor_numbers_fit():
    with pytest.raises(UserError, match="like `x1`, the questions' like `1`, and 1 rows cannot .* with 3 questions"):
        match(ITEMS, [Answer("x1", "a")], Problems())


def test_an_alias_is_as_good_as_the_id_unless_the_prompt_is_of_another_question():
    items = [item("random/1", "Is it red?", aliases=("10000001",)), item("random/2", "Is it?", aliases=("10000002",))]
    problems = Problems()
    answers = [Answer("10000002", "b", "Is it blue?"), Answer("10000001", "a", "Is it red?\nAnswer.")]
    assert match(items, answers, problems) == {"random/1": "a", "random/2": "b"}
    assert problems.as_dict() == {"answer to another question": {"count": 1, "first": ["random/2"]}}


@pytest.mark.parametrize(
    "prompt",
    [
        "What Brand?\nAnswer the question using a single word or phrase.",
        "What brand?\nReference OCR token: A, B\nAnswer the question using a single word or phrase.",
        "Reference OCR token: A, B\nWhat brand?\nAnswer the question using a single word or phrase.",
        "OCR tokens: A, B. Question: What brand? Short answer:",
        "what brand?",
    ],
)
def test_llavas_textvqa_rows_are_found_by_image_and_question(prompt):
    items = [item("34602", aliases=(question_key("0054c", "what brand?"),)), item("34603", aliases=("0054c where?",))]
    assert match(items, [Answer("0054c", "Dakota", prompt)], Problems()) == {"34602": "Dakota"}


def test_missing_and_empty_answers_are_noted_in_the_items_order():
    problems = Problems()
    items = [item(str(number), gold=True) for number in range(4)]
    assert texts_of(items, {"2": " \n", "0": "yes", "3": ""}, problems) == ["yes", None, " \n", ""]
    assert problems["missing answer"] == ["1"]
    assert problems["empty prediction"] == ["2", "3"]


def test_questions_without_labels_cannot_be_scored():
    with pytest.raises(UserError, match=r"2 of 3 questions have no labels .*\(first: 1\)"):
        texts_of([item("0", gold=False), item("1"), item("2")], {}, Problems())
