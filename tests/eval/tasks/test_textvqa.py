import pytest

from helpers.eval_files import write_json, write_lines
from tove_lvlm.config import UserError
from tove_lvlm.eval.io.answers import Answer, match
from tove_lvlm.eval.io.problems import Problems
from tove_lvlm.eval.tasks.textvqa import TextVqa, TextVqaOcr

ASK = "\nAnswer the question using a single word or phrase."
BRAND = ["nous les gosses", "dakota", "clos culombu", "dakota digital", *["dakota"] * 4, "dakota digital", "Dakota"]


def row(number: int, image: str, question: str, answers=BRAND, **more) -> dict:
    return {"question_id": number, "image_id": image, "question": question, "answers": answers, **more}


ROWS = [
    row(34602, "003a8ae2ef43b901", "what is the brand of this camera?"),
    row(34603, "003a8ae2ef43b901", "What model?", ["1,000"] * 10),
    row(34604, "ffff", "what time?", ["10:10"] * 10),
]


@pytest.fixture
def gold(tmp_path):
    return write_json(tmp_path / "TextVQA_0.5.1_val.json", {"dataset_name": "textvqa", "data": ROWS})


def test_items_carry_llavas_prompt_and_ten_answers(gold):
    problems = Problems()
    items = TextVqa().read([gold], problems)
    assert not problems
    assert [(item.question_id, item.image) for item in items] == [
        ("34602", "003a8ae2ef43b901.jpg"),
        ("34603", "003a8ae2ef43b901.jpg"),
        ("34604", "ffff.jpg"),
    ]
    assert items[1].text == "What model?" + ASK
    assert items[0].gold.answers == tuple(BRAND)


def test_answers_under_the_image_and_the_question_are_scored_as_llava_does(gold):
    items = TextVqa().read([gold], Problems())
    answers = [
        Answer("003a8ae2ef43b901", "1000", "what model?\nReference OCR token: A" + ASK),
        Answer("003a8ae2ef43b901", "Dakota Digital.", "what is the brand of this camera?" + ASK),
        Answer("ffff", "Ten", "What time?" + ASK),
    ]
    problems = Problems()
    texts = match(items, answers, problems)
    assert texts == {"34603": "1000", "34602": "Dakota Digital.", "34604": "Ten"}
    score = TextVqa().score(items, texts, "official", problems)
    assert not problems
    assert score.metrics == {"accuracy": round(100 * (0.6 + 1 + 0) / 3, 2)}


def test_answers_under_the_question_id_are_the_same(gold):
    items = TextVqa().read([gold], Problems())
    assert match(items, [Answer("34604", "x")], Problems()) == {"34604": "x"}


OCR = "\nReference OCR token: DAKOTA, DIGITAL" + ASK


def test_ocr_tokens_come_from_llavas_prompts(gold, tmp_path):
    rows = [
        {"question_id": "003a8ae2ef43b901", "image": "x.jpg", "text": f"{question}{OCR}", "category": "default"}
        for question in ("What is the brand of this camera?", "What model?")
    ] + [{"question_id": "ffff", "image": "x.jpg", "text": "what time?\nReference OCR token: " + ASK}]
    items = TextVqaOcr().read([gold, write_lines(tmp_path / "llava.jsonl", rows)], Problems())
    assert [item.text for item in items] == [row["text"] for row in rows]


def test_ocr_tokens_come_from_rosetta_or_the_rows_themselves(tmp_path):
    rows = [ROWS[0], ROWS[2] | {"ocr_tokens": ["X"]}]
    gold = write_json(tmp_path / "gold.json", {"data": rows})
    rosetta = {"data": [{"image_id": ROWS[0]["image_id"], "ocr_tokens": ["DAKOTA", "DIGITAL"], "ocr_info": []}]}
    items = TextVqaOcr().read([gold, write_json(tmp_path / "rosetta.json", rosetta)], Problems())
    assert items[0].text == "what is the brand of this camera?" + OCR
    assert items[1].text == "what time?\nReference OCR token: X" + ASK


def test_without_tokens_there_is_no_ocr(gold):
    with pytest.raises(UserError, match=r"TextVQA_0.5.1_val.json data:1: no OCR tokens for image `003a8ae2ef43b901`"):
        TextVqaOcr().read([gold], Problems())


def test_few_or_no_annotators_are_named(tmp_path):
    rows = [row(1, "a", "?", ["x"] * 9), row(2, "b", "?", []), {"question_id": 3, "image_id": "c"}]
    problems = Problems()
    items = TextVqa().read([write_json(tmp_path / "gold.json", {"data": rows})], problems)
    assert [item.question_id for item in items] == ["1"]
    assert problems["question with fewer than ten annotators"] == ["gold.json data:1"]
    assert problems["question without annotators"] == ["gold.json data:2"]
    assert problems["row without `question`"] == ["gold.json data:3"]


def test_llavas_question_file_alone_names_no_questions(tmp_path):
    path = write_lines(tmp_path / "llava.jsonl", [{"question_id": "ffff", "image": "x.jpg", "text": "what?" + ASK}])
    with pytest.raises(UserError, match="no questions in .*llava.jsonl: expected `data`"):
        TextVqa().read([path], Problems())
