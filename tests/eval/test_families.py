import json

import pytest

from tove_lvlm.config import UserError
from tove_lvlm.eval.families import FamilyQuestion, chance, read_questions, score


def ask(family, answer, text="?"):
    return FamilyQuestion(question_id="q", image="i.png", text=text, answer=answer, family=family)


def test_score_by_family_and_overall():
    questions = [ask("exist", "yes"), ask("exist", "no"), ask("exist", "no"), ask("color", "red")]
    got = score(questions, [" Yes. ", "yes", "no", "redd"])
    assert got["families"] == {"exist": {"accuracy": 2 / 3, "n": 3}, "color": {"accuracy": 0.0, "n": 1}}
    assert got["overall"] == {"accuracy": 0.5, "n": 4}


def test_chance_is_the_majority_answer_of_each_family():
    questions = [ask("exist", "yes"), ask("exist", "no"), ask("exist", "no"), ask("color", "red"), ask("color", "blue")]
    assert chance(questions)["families"]["exist"]["accuracy"] == 2 / 3
    assert chance(questions)["overall"]["accuracy"] == 3 / 5


def test_chance_of_questions_that_name_their_answers():
    text = "Which is nearer, {} or {}?"
    pairs = [("red", "blue"), ("green", "red"), ("blue", "green")]
    questions = [ask("rel", pair[k], text.format(*pair)) for pair in pairs for k in (0, 1)]
    # Always `red` would be right in a third of the cases, one of the two that are named in half.
    assert chance(questions)["families"]["rel"]["accuracy"] == pytest.approx(1 / 2)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="1 questions but 0 answers"):
        score([ask("exist", "yes")], [])


def test_read_questions(tmp_path):
    path = tmp_path / "questions.jsonl"
    row = {"question_id": 7, "image": "i.png", "text": "?", "answer": "yes", "family": "exist"}
    path.write_text(json.dumps(row) + "\n\n")
    assert read_questions(path) == [FamilyQuestion(**(row | {"question_id": "7"}))]
    path.write_text(json.dumps(row) + "\n" + json.dumps(row | {"family": None})[:-20] + "\n")
    with pytest.raises(UserError, match="questions.jsonl:2: not a JSON object"):
        read_questions(path)
    path.write_text(json.dumps({key: row[key] for key in row if key != "answer"}))
    with pytest.raises(UserError, match=r"questions.jsonl:1: the field 'answer' is missing"):
        read_questions(path)
    path.write_text("\n")
    with pytest.raises(UserError, match="no questions in it"):
        read_questions(path)
    with pytest.raises(UserError, match="does not exist"):
        read_questions(tmp_path / "none.jsonl")
