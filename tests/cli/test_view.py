"""`tove view`: what is wrong is said before a model is loaded."""

import pytest


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "set TOVE_VIEW_PASSWORD"),
        (["--device", "cuda:77"], "there is no such device here"),
        (["--examples", "absent"], "--examples `absent` is no folder"),
        (["--runs", "absent"], "1 run given"),
    ],
)
def test_one_line_says_what_is_wrong(tove, checkpoints, options, said, monkeypatch):
    monkeypatch.delenv("TOVE_VIEW_PASSWORD", raising=False)
    code, _, err = tove("view", "--model", checkpoints["merged"], "--no-browser", *options)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


def test_a_tower_answers_nothing(tove, checkpoints, tmp_path):
    code, _, err = tove("view", "--model", checkpoints["tower"])
    assert (code, "is a tower without a language model" in err) == (2, True)
    code, _, err = tove("view", "--model", tmp_path / "absent")
    assert (code, "does not exist" in err) == (2, True)
