"""The suite itself: each way to break the property is found, and a failure can be run again."""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import strategies as st

from helpers.paths import ROOT
from tove_lvlm.config import UserError

from .mutate import byte_edits, edited, edited_bytes, json_edits
from .property import ACCEPTED, REFUSED, Target, answered, check_line
from .run import FailureFoundError, fuzz, replay, write_failure


def _write(case: int, folder: Path) -> None:
    (folder / "number").write_text(str(case))


def _refuse(case: int, inputs: Path, output: Path, message: str = "too large") -> int:
    if case > 50:
        raise UserError(message)
    return case


GOOD = Target(
    name="good",
    cases=st.integers(0, 100),
    write=_write,
    act=_refuse,
    accepted=lambda case, inputs, output, result: None,
    deadline=0.2,
)


def _acting(act) -> Target:
    return dataclasses.replace(GOOD, act=lambda case, inputs, output: act(case, inputs, output))


def _writes_and_refuses(case, inputs, output):
    output.mkdir()
    return _refuse(case, inputs, output)


BROKEN = {
    "another exception": (lambda case, inputs, output: 1 // (case - case), "ZeroDivisionError"),
    "an empty message": (lambda case, inputs, output: _refuse(case, inputs, output, " "), "the message is empty"),
    "an input that is changed": (
        lambda case, inputs, output: (inputs / "number").write_text("no"),
        "an input has been changed",
    ),
    "an input that is new": (lambda case, inputs, output: (inputs / "more").mkdir(), "an input has been changed"),
    "a file beside the output": (lambda case, inputs, output: (inputs.parent / ".tmp").mkdir(), "left beside"),
    "an output of a refusal": (_writes_and_refuses, "a refusal has left an output"),
    "a hang": (lambda case, inputs, output: time.sleep(5), "not done after"),
    "memory": (lambda case, inputs, output: bytearray(1 << 36), "MemoryError"),
}


def test_a_good_target_counts_both_outcomes():
    counts = fuzz(GOOD, max_examples=50, seed=1)
    assert counts.outcomes[ACCEPTED] > 5
    assert counts.outcomes[REFUSED] > 5
    assert counts.outcomes == fuzz(GOOD, max_examples=50, seed=1).outcomes


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_property_is_found(name):
    act, reason = BROKEN[name]
    with pytest.raises(FailureFoundError, match=reason):
        fuzz(_acting(act), max_examples=20, seed=1)


def test_an_exit_code_without_its_line_is_found():
    with pytest.raises(AssertionError, match="exit code 1"):
        answered(1, "", "error: no")
    with pytest.raises(AssertionError, match="without a line"):
        answered(2, "", "Traceback")
    for message in ("a\nb", "x" * 2000):
        with pytest.raises(AssertionError, match=r"several lines|2000 characters"):
            check_line(message)
    with pytest.raises(UserError, match="^why$"):
        answered(2, "", "WARNING x\nerror: why\n")


def test_a_failure_is_written_and_run_again(tmp_path):
    broken = _acting(lambda case, inputs, output: 1 // (30 - case if case > 29 else 1))
    with pytest.raises(FailureFoundError) as found:
        fuzz(broken, max_examples=200, seed=1)
    assert found.value.case == 30
    path = write_failure(found.value, tmp_path)
    with pytest.raises(ZeroDivisionError):
        replay(path, {"good": broken})
    assert replay(path, {"good": GOOD}) == ACCEPTED


def test_edits_reach_every_node_and_change_nothing_else():
    value = {"a": [1, {"b": "x"}], "c": None}
    assert edited(value, []) == value
    reached = [edited(value, [[place, "set", "!"]]) for place in range(6)]
    assert "!" in reached
    assert {"a": [1, {"b": "!"}], "c": None} in reached
    assert edited(value, [[1, "drop", None]]) == {"c": None}
    assert edited_bytes(b"abcd", [[500, "put", 0, b"--".hex()]]) == b"ab--cd"
    assert edited_bytes(b"abcd", [[0, "head", 1, b"--".hex()]]) == b"a--d"
    for strategy in (json_edits(), byte_edits()):
        assert not strategy.is_empty


@pytest.mark.full
def test_the_command_line_runs_and_says_how_many():
    command = [sys.executable, "-m", "tests.fuzz", "--minutes", "0.1", "--target", "images", "--seed", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "images" in done.stdout.splitlines()[-1]
    assert "accepted" in done.stdout.splitlines()[-1]
