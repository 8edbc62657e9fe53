import pytest

from tove_lvlm.eval.metrics.binary import Confusion, count, yes_or_no

SAID = [True, True, False, False, None, None, True]
GOLD = [True, False, False, True, True, False, True]


def test_every_question_is_in_one_cell():
    assert count(SAID, GOLD) == Confusion(tp=2, fp=1, tn=1, fn=2, undecided=1)
    assert count(SAID, GOLD, undecided_misses=False) == Confusion(tp=2, fp=1, tn=1, fn=1, undecided=2)


def test_metrics_by_hand():
    metrics = Confusion(tp=2, fp=1, tn=1, fn=2, undecided=1).metrics()
    assert metrics == {
        "f1": pytest.approx(4 / 7),
        "accuracy": pytest.approx(3 / 7),
        "precision": pytest.approx(2 / 3),
        "recall": 0.5,
        "yes_ratio": pytest.approx(3 / 7),
        **{"tp": 2, "fp": 1, "tn": 1, "fn": 2, "undecided": 1, "n": 7},
    }
    assert next(iter(metrics)) == "f1"


def test_percents_leave_the_counts_alone():
    metrics = Confusion(tp=1, fp=1, tn=1, fn=1, undecided=0).metrics(100.0)
    assert (metrics["f1"], metrics["accuracy"], metrics["tp"], metrics["n"]) == (50.0, 50.0, 1, 4)


def test_nothing_said_gives_zeros_and_no_error():
    metrics = count([None, None], [True, False]).metrics()
    assert [metrics[name] for name in ("f1", "accuracy", "precision", "recall", "yes_ratio")] == [0.0] * 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes", True),
        ("yes.", True),
        ("YES, there is", True),
        ("Answer:no", None),
        ("No!", False),
        ("There is no dog", False),
        ("There is not", None),
        ("Yes and no", None),
        ("nothing", None),
        ("yes/no", None),
        ("", None),
    ],
)
def test_yes_or_no_wants_exactly_one_of_the_words(text, said):
    assert yes_or_no(text) is said
