"""Building a trainer: what a user is told."""

import json

import pytest

from tove_lvlm.provenance import of_run
from tove_lvlm.train import run


@pytest.mark.parametrize(("bf16", "fast", "told"), [("true", False, 1), ("true", True, 0), ("false", False, 0)])
def test_slow_bf16_is_told(make_trainer, monkeypatch, caplog, bf16, fast, told):
    monkeypatch.setattr(run, "cpu_has_fast_bf16", lambda: fast)
    make_trainer("pretrain", f"train.bf16={bf16}")
    assert caplog.text.count("train.bf16=false is faster") == told


def test_a_run_says_which_programs_and_which_machine_made_it(world, train):
    assert train("pretrain", "train.max_steps=1", "train.save_steps=9") == 0
    assert json.loads((world / "out-pretrain" / "provenance.json").read_text()) == of_run("cpu", 1)
