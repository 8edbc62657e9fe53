"""The base model's benchmark in the miniature: what recall counts, the means, and a whole quick run."""

import json

import pytest

from helpers.benchmarks import run_benchmark
from helpers.paths import ROOT


@pytest.fixture(scope="module")
def modules():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import base_demo
        from study import base
    return base_demo, base


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
def test_recall_is_of_the_objects_before_the_comparison(modules, said, expected):
    found = modules[1].recall([said], [RIGHT])
    assert tuple(found[part] for part in ("objects", "colors", "shapes", "distances")) == expected


def test_means_and_spread_over_seeds(modules):
    def run(vqa: float, cider: float | None) -> dict:
        nested = {"recall": {"objects": vqa}, "families": {"exist": 1.0}, "vsr_by_relation": {"side": 50.0}}
        return {"cider": cider, "vsr": 60.0, "vqa": vqa, **nested}

    found = modules[0].summarise({"0": {"tove": run(90.0, None)}, "1": {"tove": run(94.0, None)}})
    assert found["seeds"] == [0, 1]
    assert found["variants"]["tove"]["vqa"] == 92.0
    assert found["variants"]["tove"]["recall/objects"] == 92.0
    assert found["spread"]["tove"]["vqa"] == 4.0
    assert found["variants"]["tove"]["cider"] is None


@pytest.mark.full
def test_a_quick_run_writes_every_variant(tmp_path):
    run_benchmark("base_demo.py", "--quick", "--workers", 2, "--output", tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results" / "base_demo.json").read_text())
    assert set(results["variants"]) == {"clip", "tove", "detached"}
    assert results["runs"]["0"]["detached"]["detached"] == ["normals", "edges"]
    assert results["commit"]
