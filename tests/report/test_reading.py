"""What runs left on the disk, whole and cut short."""

import json
import math

import pytest

from helpers.eval_files import write_json
from helpers.report_files import clip_line, log_line, make_run
from tove_lvlm.config import UserError
from tove_lvlm.report.reading import differing, flat, read_runs


def test_the_figures_of_a_run(tmp_path):
    made_by = {"versions": {"torch": "2.9"}, "commit": "abc1234", "hardware": "a CPU, 2 cores", "world_size": 2}
    (run,) = read_runs([make_run(tmp_path / "tove", made_by=made_by)])
    assert (run.name, run.max_steps, run.last_step, run.experts) == ("tove", 30, 30, ["depth", "edges"])
    assert run.series["loss"].steps == [10, 20, 30]
    assert run.series["loss"].values == pytest.approx([2.5, 2.0, 1.5])
    assert run.series["gate_mass/depth"].last == pytest.approx(0.55)
    assert not {"step", "max_steps", "epoch"} & run.series.keys()
    assert run.config == {"model.vision_tower": "tove", "data.train": ["a.json"], "train.seed": 1}
    assert run.made_by == made_by
    assert run.problems == []


def test_a_log_that_is_cut_off_or_broken_is_read_as_far_as_it_goes(tmp_path):
    folder = make_run(tmp_path / "run", [log_line(10), log_line(20, loss=math.nan), log_line(30, loss=math.inf)])
    text = (folder / "metrics.jsonl").read_text()
    rest = [
        '{"step": "x", "loss": 1}',
        "[1]",
        '"step"',
        '{"step": true}',
        json.dumps(clip_line(40)),
        '{"step": 50, "lo',
    ]
    (folder / "metrics.jsonl").write_bytes((text + "\n".join(rest)).encode() + b"\xff")
    (run,) = read_runs([folder])
    assert run.series["loss"].steps == [10, 20, 30, 40]
    assert run.series["loss"].finite == pytest.approx([2.5, 1.0])
    assert run.series["loss"].last == pytest.approx(1.0)
    assert run.series["gate_entropy"].steps == [10, 20, 30]
    assert run.problems == [
        "metrics.jsonl has lines that cannot be read and are left out: 4, 5, 6, 7, 9",
        "`loss` is not a finite number at step 20, 30",
    ]


def test_of_a_step_that_was_logged_twice_the_last_counts(tmp_path):
    (run,) = read_runs([make_run(tmp_path / "run", [log_line(10), log_line(20), log_line(10, loss=7.0)])])
    assert run.series["loss"].steps == [10, 20]
    assert run.series["loss"].values == pytest.approx([7.0, 2.0])


def test_figures_that_no_float_holds(tmp_path):
    (run,) = read_runs([make_run(tmp_path / "run", [log_line(1, loss=10**400, note="text", flags=[1])])])
    assert run.series["loss"].values == [math.inf]
    assert not {"note", "flags"} & run.series.keys()


def test_a_run_that_has_not_logged_yet(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "metrics.jsonl").unlink()
    (run,) = read_runs([folder])
    assert (run.series, run.last_step, run.max_steps) == ({}, 0, None)
    assert run.problems == ["there is no metrics.jsonl: nothing was logged"]


def test_a_folder_that_holds_several_runs_and_the_names_that_tell_them_apart(tmp_path):
    for name in ("one/tove", "one/clip", "two/tove"):
        run = make_run(tmp_path / name)
        make_run(run / "checkpoint-10")
    (tmp_path / "one" / "data").mkdir()
    runs = read_runs([tmp_path / "one", tmp_path / "two" / "tove", tmp_path / "one" / "tove"])
    assert [run.name for run in runs] == ["one/clip", "one/tove", "two/tove"]
    assert [run.name for run in read_runs([tmp_path / "one"])] == ["clip", "tove"]


def test_versions_of_runs_from_before_they_were_recorded(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "adapter").mkdir()
    write_json(folder / "adapter" / "tove_model.json", {"written_by": {"torch": "2.8"}})
    assert read_runs([folder])[0].made_by == {"versions": {"torch": "2.8"}}


def test_what_differs_between_runs(tmp_path):
    shared = {"model": {"vision_tower": "tove"}, "data": {"train": ["a.json"]}}
    one = make_run(tmp_path / "one", config=shared | {"train": {"seed": 1, "bf16": True}})
    two = make_run(tmp_path / "two", config=shared | {"train": {"seed": 2, "bf16": True}, "lora": {"lora_r": 4}})
    assert differing(read_runs([one, two])) == ["train.seed", "lora.lora_r"]
    assert differing(read_runs([one])) == []


def test_blocks_become_dotted_keys():
    nested = {"a": {"b": 1, "c": {}}, "d": [{"e": 2}], "f": None}
    assert list(flat(nested)) == [("a.b", 1), ("a.c", {}), ("d", [{"e": 2}]), ("f", None)]
    assert list(flat({})) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "absent", "does not exist; name a folder that a training script wrote"),
        (lambda folder: make_run(folder / "run") / "run.yaml", "is a file; name the folder"),
        (lambda folder: folder, "there is no training run in"),
        (lambda folder: checkpoint_of(folder), "is a checkpoint of a run; name the run's folder"),
        (
            lambda folder: with_yaml(folder, "a: [1"),
            "run.yaml` is no run's YAML, it cannot be read: expected ',' or ']'",
        ),
        (lambda folder: with_yaml(folder, "- 1"), "run.yaml` is no run's YAML: it holds no `key: value` lines"),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(tmp_path, make, message):
    with pytest.raises(UserError, match=message) as raised:
        read_runs([make(tmp_path)])
    assert "\n" not in str(raised.value)


def checkpoint_of(folder):
    checkpoint = make_run(folder / "run" / "checkpoint-10")
    write_json(checkpoint / "complete.json", {})
    return checkpoint


def with_yaml(folder, text):
    run = make_run(folder / "run")
    (run / "run.yaml").write_text(text)
    return run
