"""A few kills of the cheapest commands, twenty over all of them with `full`; and that the suite sees what is wrong."""

import json
import os
import subprocess
import sys

import pytest

from helpers.paths import ROOT
from kill.bench import Bench, Outcome
from kill.commands import Command
from kill.events import Plan
from kill.moments import AtChange, AtTime, Moment, unfinished_entries


def run_suite(folder, *arguments: str) -> list[dict]:
    """The rows of `python -m tests.kill`, none of which may have a failure."""
    command = [sys.executable, "-m", "tests.kill", "--json", str(folder / "table.json"), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return json.loads((folder / "table.json").read_text())


def test_a_few_kills(tmp_path):
    rows = run_suite(tmp_path, "--runs", "4", "--only", "export", "eval:1")
    assert sum(row["runs"] for row in rows) == 4
    assert sum(row["hits"] for row in rows) > 0


@pytest.mark.full
def test_twenty_kills(tmp_path):
    several = ["stage1:2", "stage2:1", "base:1", "merge:1", "detach", "export-code", "gates", "eval:2", "fetch"]
    rows = run_suite(tmp_path, "--runs", "20", "--seconds", "300", "--only", *several)
    assert sum(row["hits"] for row in rows) >= 10


# ---- the suite itself, on commands of three lines ----

WHOLE = """
with open(out / ".a.json.part", "w") as file:
    file.write(text)
os.rename(out / ".a.json.part", out / "a.json")
"""
IN_PLACE = """
with open(out / "a.json", "w") as file:
    file.write(text)
"""
KEEPS_A_TEMPORARY = """
with open(out / f".a.json.{os.getpid()}", "w") as file:
    file.write(text)
os.rename(out / f".a.json.{os.getpid()}", out / "a.json")
"""
GOES_ON_WRONGLY = """
if (out / "begun").exists():
    text = text.replace("1", "2")
open(out / "begun", "w").close()
os.rename(out / "begun", out / "begun")
open(out / "a.json", "w").write(text) if not (out / "a.json").exists() else None
"""
KEEPS_A_LOCK = """
os.close(os.open(out / "lock", os.O_CREAT | os.O_EXCL))
open(out / ".a.json.part", "w").write(text)
os.rename(out / ".a.json.part", out / "a.json")
os.remove(out / "lock")
"""
CHANGES_ITS_INPUT = """
open(out / "a.json", "w").close()
os.rename(out / "a.json", out / "a.json")
open(source / "input", "a").write("more")
"""


def outcome(folder, body: str, *moments: Moment) -> Outcome:
    """One run of a script that is killed at each of these moments."""
    script = folder / "script.py"
    script.write_text(
        "import os, sys\nfrom pathlib import Path\nsource, out = map(Path, sys.argv[1:])\n"
        f"""text = '{{"a": 1}}'\nos.makedirs(out, exist_ok=True)\n{body}"""
    )
    command = Command(
        name="script",
        make=lambda inputs: (inputs / "input").write_text("one") and None,
        argv=lambda inputs, place, ranks: [str(script), str(inputs), str(place / "out")],
        environment={"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        is_cold=True,
    )
    bench = Bench(command, 1, folder)
    bench.prepare()
    return bench.run(0, moments)


def at_change(index: int, calls: int) -> AtChange:
    return AtChange(Plan(0, index, calls))


@pytest.mark.parametrize(("index", "calls"), [(0, 0), (1, 1), (2, 0), (2, 1)])
def test_what_is_written_whole_passes(tmp_path, index, calls):
    found = outcome(tmp_path, WHOLE, at_change(index, calls))
    assert (found.problems, found.hits) == ([], 1)


@pytest.mark.parametrize(
    ("body", "index", "calls", "problem"),
    [
        (IN_PLACE, 1, 1, "after the kill: out/a.json is not whole"),
        (KEEPS_A_TEMPORARY, 2, 0, " is left over"),
        (GOES_ON_WRONGLY, 2, 0, "out/a.json differs"),
        (KEEPS_A_LOCK, 2, 0, "the run after the kill ends with 1: FileExistsError"),
    ],
    ids=["in place", "temporary", "goes on wrongly", "lock"],
)
def test_what_is_wrong_is_seen(tmp_path, body, index, calls, problem):
    found = outcome(tmp_path, body, at_change(index, calls))
    assert found.hits == 1
    assert any(problem in line for line in found.problems), found.problems


def test_a_changed_input_is_seen(tmp_path):
    assert "the inputs are not as they were" in outcome(tmp_path, CHANGES_ITS_INPUT, at_change(2, 0)).problems


def test_a_run_that_is_over_before_its_moment_is_no_hit(tmp_path):
    found = outcome(tmp_path, WHOLE, at_change(99, 0))
    assert (found.problems, found.hits) == ([], 0)


def test_a_run_that_is_killed_before_it_prints_has_a_log_all_the_same(tmp_path):
    found = outcome(tmp_path, WHOLE, *[AtTime(0.0)] * 5)
    assert (found.problems, found.hits) == ([], 5)


def test_a_folder_that_vanishes_while_it_is_looked_at_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / ".out.part").mkdir()
    (tmp_path / "gone").mkdir()
    scandir = os.scandir

    def vanishing(path):
        if os.fspath(path).endswith("gone"):
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert unfinished_entries(tmp_path) == {str(tmp_path / ".out.part")}
