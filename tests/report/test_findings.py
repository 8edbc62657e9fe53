"""Which records, reports and panels belong to a report."""

import pytest

from helpers.eval_files import write_json
from helpers.report_files import make_evaluation, make_gates, make_labels, make_run, make_usage
from tove_lvlm.config import UserError
from tove_lvlm.report.findings import find_demos, find_evaluations, find_gates, find_usage, panels
from tove_lvlm.report.reading import read_runs

ANSWERS = {1: "no", 2: "yes", 3: "yes"}


@pytest.fixture
def runs(tmp_path):
    make_run(tmp_path / "out" / "tove")
    return read_runs([tmp_path / "out" / "tove"])


def folders(found):
    return [one.folder.name for one in found]


def test_records_in_a_run_beside_it_and_given(tmp_path, runs):
    labels = make_labels(tmp_path / "data")
    make_evaluation(tmp_path / "out" / "tove" / "eval" / "inside", labels, ANSWERS)
    make_evaluation(tmp_path / "out" / "eval" / "tove" / "beside", labels, ANSWERS, model="tove")
    make_evaluation(tmp_path / "out" / "eval" / "other" / "pope", labels, ANSWERS, model="other")
    given = make_evaluation(tmp_path / "elsewhere" / "given", labels, ANSWERS)
    assert folders(find_evaluations(runs)) == ["inside", "beside"]
    found = find_evaluations(runs, [given, given.parent, tmp_path / "out" / "eval" / "other"])
    assert folders(found) == ["inside", "beside", "given", "pope"]
    assert [one.model for one in found] == ["inside", "tove", "given", "other"]


def test_usage_and_gates_in_a_run_and_given(tmp_path, runs):
    make_usage(tmp_path / "out" / "tove" / "usage")
    given = make_usage(tmp_path / "usage" / "given")
    assert folders(find_usage(runs, [given])) == ["usage", "given"]
    gates = make_gates(tmp_path / "gates", ("photo.jpg", "b.png"))
    (found,) = find_gates(runs, [gates])
    assert [(image, file.name) for image, file in panels(found)] == [
        ("photo.jpg", "000-photo.png"),
        ("b.png", "001-b.png"),
    ]


def test_a_folder_without_a_panel_is_refused(tmp_path, runs):
    gates = make_gates(tmp_path / "gates")
    (gates / "001-b.png").unlink()
    with pytest.raises(UserError, match=r"has no panel 001-\*.png of its gates.json; run `tove gates` again"):
        panels(find_gates(runs, [gates])[0])


def test_held_out_results_of_the_demo(tmp_path, runs):
    place = tmp_path / "out" / "results.json"
    assert find_demos(runs) == []
    for content in ({"mine": 1}, {"chance": 1, "variants": {}}, {"chance": {"families": {}}, "variants": 3}):
        write_json(place, content)
        assert find_demos(runs) == []
    write_json(place, {"chance": {"families": {}}, "variants": {"tove": {"families": {}}}})
    assert [one.folder.name for one in find_demos(runs)] == ["out"]


@pytest.mark.parametrize(
    ("find", "option", "name"),
    [
        (find_evaluations, "--eval", "record.json"),
        (find_usage, "--usage", "usage.json"),
        (find_gates, "--gates", "gates.json"),
    ],
)
def test_given_folders_must_hold_what_they_are_given_for(tmp_path, runs, find, option, name):
    with pytest.raises(UserError, match=f"^{option} `.*absent` is no folder; name one that `tove"):
        find(runs, [tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"^{option} `.*empty` has no {name} in it"):
        find(runs, [tmp_path / "empty"])
    (tmp_path / "wrong").mkdir()
    write_json(tmp_path / "wrong" / name, {"format": 1, "metrics": [], "experts": ["depth"], "images": {"a": 1}})
    with pytest.raises(UserError, match=f"{name}` is n"):
        find(runs, [tmp_path / "wrong"])
