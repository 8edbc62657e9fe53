"""`tove report`: one file out of runs, and one line of what is wrong."""

import sys

import pytest

from helpers.report_files import make_evaluation, make_gates, make_labels, make_run, make_usage
from helpers.tiny_towers import hashes


@pytest.fixture
def places(tmp_path):
    """A run, its evaluation, usage and gates, and the data that it was evaluated on."""
    labels = make_labels(tmp_path / "data")
    make_run(tmp_path / "runs" / "tove")
    make_evaluation(tmp_path / "eval" / "pope", labels, {1: "yes", 2: "yes"}, model="tove")
    make_usage(tmp_path / "usage")
    make_gates(tmp_path / "gates")
    return tmp_path


def test_one_page_of_all_that_is_given(tove, places):
    before = hashes(places)
    output = places / "new" / "report.html"
    given = ["--eval", places / "eval", "--usage", places / "usage", "--gates", places / "gates"]
    code, out, err = tove("report", places / "runs", *given, "--data", places / "data", "--output", output)
    assert code == 0, err
    assert out == f"{output}: 1 runs, 1 evaluations, 1 usage reports, 1 folders of gate panels\n"
    text = output.read_text()
    assert "<title>Training report: tove</title>" in text
    assert text.count("data:image/png;base64,") >= 2 + 1
    assert text.count("✗ wrong") == 1
    after = hashes(places)
    assert after.pop("new/report.html")
    assert after == before


def test_no_examples_and_an_older_report_is_replaced(tove, places):
    output = places / "report.html"
    for _ in range(2):
        code, _, err = tove(
            "report", places / "runs" / "tove", "--eval", places / "eval", "--examples", "0", "--output", output
        )
        assert code == 0, err
    assert "✗ wrong" not in output.read_text()


def test_bad_input_is_one_line_and_nothing_is_written(tove, places):
    (places / "thesis.html").write_text("mine")
    (places / "empty").mkdir()
    before = hashes(places)
    run, output = places / "runs" / "tove", places / "out.html"
    for arguments, message in [
        ((places / "absent", "--output", output), "does not exist; name a folder that a training script wrote"),
        ((places / "empty", "--output", output), "there is no training run in"),
        ((run, "--eval", places / "empty", "--output", output), "has no record.json in it"),
        ((run, "--usage", places / "absent", "--output", output), "is no folder"),
        ((run, "--gates", places / "usage", "--output", output), "has no gates.json in it"),
        ((run, "--eval", places / "eval", "--data", places / "absent", "--output", output), "does not exist"),
        ((run, "--output", run / "report.html"), "lies in the input"),
        ((run, "--eval", places / "eval", "--output", places / "eval" / "out.html"), "lies in the input"),
        ((run, "--output", places / "thesis.html"), "is no report of `tove report`"),
        ((run, "--output", places / "empty"), "is a folder; name a file"),
    ]:
        code, out, err = tove("report", *arguments)
        assert (code, out) == (2, ""), message
        assert message in err
        assert err.startswith("error: ")
        assert len(err.strip().splitlines()) == 1
    assert hashes(places) == before


def test_without_matplotlib_the_extra_is_named(tove, places, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, _, err = tove("report", places / "runs", "--output", places / "out.html")
    assert code == 2
    assert "pip install 'tove-lvlm[viz]'" in err
    assert not (places / "out.html").exists()
