import json
import random

import pytest

from helpers.eval_files import reference, shared
from tove_lvlm.eval.metrics.vqa import Gold, answerability, soft_accuracies, soft_accuracy


@pytest.mark.parametrize(("k", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
@pytest.mark.parametrize("convention", ["vqav2", "m4c"])
def test_each_annotator_is_left_out_in_turn(k, accuracy, convention):
    others = ["cat", "dog", "cow"]
    annotators = ["bus"] * k + [others[at % 3] for at in range(10 - k)]
    assert soft_accuracy("bus", annotators, convention) == pytest.approx(accuracy)


def test_real_annotators():
    rows = json.loads(shared("vqa_samples/vqav2_val_first5.json").read_text())["vqav2"]
    where, what, on_top, *_ = (row["answers"] for row in rows)
    assert soft_accuracy("Down.", where) == 1.0
    assert soft_accuracy("the table", where) == pytest.approx(0.3)
    assert soft_accuracy("spectating", what) == pytest.approx(0.3)
    assert soft_accuracy("table", on_top) == pytest.approx(0.9)
    assert soft_accuracy("sofa", on_top) == 0.0


def test_the_challenge_normalises_nothing_where_all_ten_agree():
    yes = ["yes"] * 10
    assert soft_accuracy("Yes", yes, unanimous_as_is=True) == 0.0
    assert soft_accuracy("yes.", yes, unanimous_as_is=True) == 0.0
    assert soft_accuracy(" yes\n", yes, unanimous_as_is=True) == 1.0
    assert soft_accuracy("Yes", [" yes ", *["yes"] * 9], unanimous_as_is=True) == 0.0
    assert soft_accuracy("Yes", ["no", *["yes"] * 9], unanimous_as_is=True) == 1.0
    assert soft_accuracy("Yes", yes) == 1.0
    assert soft_accuracy("Yes", yes, "m4c") == 1.0


def test_fewer_annotators_are_taken_as_they_are():
    assert soft_accuracy("a bus", ["bus"]) == 0.0
    assert soft_accuracy("bus", ["bus"] * 4) == 1.0
    assert soft_accuracy("bus", ["bus"] * 3) == pytest.approx(2 / 3)


def test_it_is_llavas_textvqa_evaluator_on_random_answers():
    evaluator = reference("llava", "eval.m4c_evaluator").TextVQAAccuracyEvaluator()
    draw = random.Random(0)
    pool = ["Dakota", "dakota.", "the dakota", "Dakota's", "1,000", "1000", "", "a", "U.S.", "us", "x-ray", "x ray"]
    for _ in range(300):
        annotators, answer = draw.choices(pool, k=10), draw.choice(pool)
        theirs = evaluator._compute_answer_scores(annotators).get(evaluator.answer_processor(answer), 0.0)
        assert soft_accuracy(answer, annotators, "m4c") == pytest.approx(theirs, abs=1e-12)


def test_a_missing_answer_is_worth_nothing_even_where_people_said_nothing():
    golds = [Gold(answers=("a",) * 10)] * 2
    assert soft_accuracies([None, ""], golds, "m4c") == [0.0, 1.0]


def test_answerability_by_hand():
    # Said to be unanswerable: 3, of which 2 are; there are 4 among 10.
    predicted = [False, False, False, *[True] * 7]
    gold = [False, False, True, False, False, *[True] * 5]
    rates = answerability(predicted, gold)
    assert rates["average_precision"] == pytest.approx(0.5 * 2 / 3 + 0.5 * 0.4)
    assert rates["f1"] == pytest.approx(2 * 2 / (3 + 4))


def test_answerability_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    draw = random.Random(0)
    for chance in (0.0, 0.2, 0.5, 0.8, 1.0):
        predicted = [draw.random() < chance for _ in range(50)]
        gold = [draw.random() < 0.6 for _ in range(50)]
        positive, said = [not label for label in gold], [not answer for answer in predicted]
        rates = answerability(predicted, gold)
        assert rates["average_precision"] == pytest.approx(metrics.average_precision_score(positive, said))
        assert rates["f1"] == pytest.approx(metrics.f1_score(positive, said, zero_division=0.0))


def test_answerability_without_an_unanswerable_question():
    assert answerability([False, True], [True, True]) == {"average_precision": 0.0, "f1": 0.0}
