import pytest

from tove_lvlm.eval.metrics.gqa import Gold, is_right


@pytest.mark.parametrize(
    ("text", "official", "lmms"),
    [
        ("yes", True, True),
        ("Yes.", True, True),
        ("YES...", True, True),
        ("yes!", False, True),
        (" yes", False, False),
        ("the yes", False, False),
        ("yes.no", False, False),
        ("", False, False),
    ],
)
def test_what_is_forgiven(text, official, lmms):
    assert is_right(text, "yes") is official
    assert is_right(text, "yes", "lmms-eval") is lmms


def test_lmms_eval_strips_the_gold_answer_too():
    assert is_right("T-shirt.", "t-shirt", "lmms-eval")
    assert is_right("tshirt", "t-shirt", "lmms-eval")
    assert not is_right("tshirt", "t-shirt")


def test_a_query_is_open_and_everything_else_binary():
    assert Gold(answer="red", structural="query", semantic="attr").groups() == [
        "open",
        "structural/query",
        "semantic/attr",
    ]
    assert Gold(answer="red", structural="choose").groups() == ["binary", "structural/choose"]
    assert Gold(answer="red").groups() == []
