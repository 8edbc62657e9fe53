"""VQAv2's questions and annotations as samples; what is wrong with one is named."""

import json

import pytest

from tove_lvlm.data.errors import DataError
from tove_lvlm.data.records import Records
from tove_lvlm.data.text_sources import SOURCES

QUESTIONS = {
    "data_subtype": "train2014",
    "questions": [
        {"question_id": 9000, "image_id": 9, "question": "What color is it?"},
        {"question_id": 25000, "image_id": 25, "question": " Where? "},
        {"question_id": 9001, "image_id": 9, "question": "How many?"},
    ],
}
ANNOTATIONS = {
    "annotations": [
        {"question_id": 25000, "multiple_choice_answer": "table", "answers": [{"answer": "table"}] * 10},
        {"question_id": 9001, "multiple_choice_answer": "2", "answers": []},
        {"question_id": 9000, "multiple_choice_answer": "red", "answers": []},
    ]
}


@pytest.fixture
def load(tmp_path):
    def load(*contents, on_bad=None):
        files = []
        for number, content in enumerate(contents):
            files.append(tmp_path / f"{number}.json")
            files[-1].write_text(json.dumps(content))
        records = Records.load(files, lambda record: None, on_bad, reader=SOURCES["vqav2"].reader)
        return [records[index] for index in range(len(records))]

    return load


@pytest.mark.parametrize("swapped", [False, True])
def test_an_image_comes_once_with_all_its_questions(load, swapped):
    files = (ANNOTATIONS, QUESTIONS) if swapped else (QUESTIONS, ANNOTATIONS)
    first, second = load(*files)
    assert first.images[0].name == "COCO_train2014_000000000009.jpg"
    assert [turn["value"] for turn in first.conversation] == ["<image>\nWhat color is it?", "red", "How many?", "2"]
    assert second.images[0].name == "COCO_train2014_000000000025.jpg"
    assert [turn["value"] for turn in second.conversation] == ["<image>\nWhere?", "table"]
    assert first.file.endswith("1.json" if swapped else "0.json")


def test_two_splits_keep_their_images(load):
    other = {"data_subtype": "val2014", "questions": [{"question_id": 1, "image_id": 9, "question": "Who?"}]}
    answers = {"annotations": [{"question_id": 1, "multiple_choice_answer": "nobody"}]}
    records = load(QUESTIONS, other, ANNOTATIONS, answers)
    assert [record.images[0].name for record in records][2] == "COCO_val2014_000000000009.jpg"


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"question_id": 7, "image_id": 9, "question": "Why?"}, "sample '7': the question has no annotation"),
        ({"question_id": 9000, "image_id": 9, "question": ""}, r"sample '9000': expected \{question_id, image_id"),
        ({"question_id": 9000, "question": "Why?"}, r"sample '9000': expected \{question_id, image_id"),
        ({"question_id": [9000], "image_id": 9, "question": "Why?"}, "sample 'None': the question has no annotation"),
        (
            {"question_id": 9000, "image_id": [9], "question": "Why?"},
            r"sample '9000': expected \{question_id, image_id",
        ),
        ("text", r"sample 'None': expected \{question_id, image_id"),
    ],
)
def test_a_question_that_cannot_be_used_is_named(load, question, message):
    broken = {"questions": [question, *QUESTIONS["questions"]]}
    with pytest.raises(DataError, match=message):
        load(broken, ANNOTATIONS)
    bad = []
    assert len(load(broken, ANNOTATIONS, on_bad=bad.append)) == 2
    assert len(bad) == 1


def test_an_empty_answer_is_named(load):
    answers = {"annotations": [entry | {"multiple_choice_answer": " "} for entry in ANNOTATIONS["annotations"]]}
    with pytest.raises(DataError, match="sample '9000': the entry has an image and no text"):
        load(QUESTIONS, answers)


@pytest.mark.parametrize("contents", [(QUESTIONS,), (ANNOTATIONS,)])
def test_both_files_are_needed(load, contents):
    with pytest.raises(DataError, match="name both the questions and the annotations"):
        load(*contents)


def test_a_file_that_is_neither_is_named(load):
    with pytest.raises(DataError, match=r"0\.json: expected an object with the list `questions` or `annotations`"):
        load({"rows": []})
