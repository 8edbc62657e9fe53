"""The base model's benchmark in the miniature: what recall counts, the means, and a whole quick run."""

import json

import pytest
from study import base, base_summary, captions

from helpers.benchmarks import run_benchmark
from tove_lvlm.checkpoints import open_checkpoint

RIGHT = "a red sphere near at the left, a blue box far at the right. the blue box is farther than the red sphere."


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (RIGHT, (100, 100, 100, 100)),
        ("a red sphere far at the left, a blue box far at the right. the blue box is nearer.", (100, 100, 100, 50)),
        ("a red box near at the left. the red sphere and the blue box", (0, 50, 50, 0)),
        ("", (0, 0, 0, 0)),
    ],
)
def test_recall_is_of_the_objects_before_the_comparison(said, expected):
    found = captions.recall([said], [RIGHT])
    assert tuple(found[part] for part in ("objects", "colors", "shapes", "distances")) == expected


def scored(vqa: float, cider: float | None = 300.0, vsr: float = 60.0) -> dict:
    nested = {"recall": {"objects": vqa}, "families": {"exist": 1.0}, "vsr_by_relation": {"side": 50.0}}
    return {"cider": cider, "vsr": vsr, "vsr_n": 100, "pope_f1": 80.0, "vqa": vqa, **nested}


def test_means_and_spread_over_seeds():
    runs = {"tove": {"0": scored(90.0, None), "1": scored(94.0, None)}, "tove_1/10": {"0": scored(70.0)}}
    found = base_summary.summarise(runs)
    assert found["seeds"] == [0, 1]
    assert found["seeds_of"]["tove_1/10"] == [0]
    assert found["variants"]["tove"]["vqa"] == 92.0
    assert found["variants"]["tove"]["recall"] == {"objects": 92.0}
    assert found["spread"]["tove"]["vqa"] == 4.0
    assert found["variants"]["tove"]["cider"] is None
    assert found["data"]["1/10"]["tove"]["recall"]["objects"] == 70.0
    assert found["data"]["1"]["tove"] == found["variants"]["tove"]
    assert "clip" not in found["data"]["1"]
    assert "1/10 of scenes: cider" in base_summary.table(found)


def test_interval_is_wilsons():
    (low, high) = base_summary.summarise({"tove": {"0": scored(90.0, vsr=60.0)}})["vsr_interval"]["tove"]
    assert (low, high) == (50.2, 69.06)  # 60 of 100


def test_every_row_is_trained_once_and_what_is_made_of_one_waits_for_it(tmp_path):
    ids = [*(row.id for row in base.ROWS), *base.DERIVED]
    assert ids == [
        "clip",
        "tove",
        "matched",
        "clip_1/100",
        "tove_1/100",
        "clip_1/10",
        "tove_1/10",
        "detached",
        "merged",
    ]
    assert [base.scenes_of(row, 3000) for row in base.ROWS] == [3000, 3000, 3000, 30, 30, 300, 300]
    jobs = base.base_jobs(ids, 3, tmp_path / "world", tmp_path, {"train": 1, "merge": 1}, 3000)
    results = [job.result.relative_to(tmp_path / "seed3").as_posix() for job in jobs]
    assert len(set(results)) == len(results) == 7 + 2 + 9
    merged = next(job for job in jobs if job.result.parent.name == "merged" and job.result.name == "made.json")
    assert merged.needs == (tmp_path / "seed3" / "tove" / "trained.json",)
    alone = base.base_jobs(["merged"], 3, tmp_path / "world", tmp_path, {"train": 1, "merge": 1}, 3000)
    assert [job.result.name for job in alone] == ["trained.json", "made.json", "score.json"]


@pytest.mark.full
def test_a_quick_run_writes_every_variant(tmp_path):
    run_benchmark("base_demo.py", "--quick", "--workers", 2, "--output", tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results" / "base_demo.json").read_text())
    assert list(results["variants"]) == ["clip", "matched", "tove", "detached", "merged"]
    assert set(results["data"]["1/100"]) == {"clip", "tove"}
    assert results["runs"]["detached"]["0"]["commit"]
    detached = tmp_path / "out" / "seed0" / "detached" / "model"
    assert set(open_checkpoint(detached).tower.attached_names) == {"depth", "shapes"}
