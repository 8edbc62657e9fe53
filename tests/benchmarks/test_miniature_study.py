"""`benchmarks/miniature_study.py --quick` from rendering to figures: one seed, few rows, loose bounds."""

import json
from pathlib import Path

import pytest

from helpers.benchmarks import run_benchmark

pytestmark = pytest.mark.full
ROWS = {"clip", "tove", "tove_100", "gate_constant", "half", "lite", "lite_tuned", "clip_tuned"}


def study(output: Path) -> str:
    return run_benchmark("miniature_study.py", "--quick", "--output", output)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    output = tmp_path_factory.mktemp("study")
    printed = study(output)
    return output, json.loads((output / "results" / "study.json").read_text()), printed


def overall(results: dict, row_id: str) -> float:
    return results["rows"][row_id]["seeds"]["0"]["overall"]


def test_every_row_has_its_families_and_chance_is_shown(found):
    _, results, printed = found
    assert set(results["rows"]) == ROWS
    families = set(results["chance"]["families"])
    for row in results["rows"].values():
        for score in row["seeds"].values():
            assert set(score["families"]) == families
        assert row["label"] in printed
    assert f"| chance |  | {100 * results['chance']['overall']:.1f} |  |" in printed


def test_experts_help_and_half_of_them_still_do(found):
    _, results, _ = found
    assert overall(results, "clip") > results["chance"]["overall"] + 0.05
    assert overall(results, "tove") > overall(results, "clip") + 0.05
    assert overall(results, "half") > overall(results, "clip")


def test_detachment_is_followed_to_the_end(found):
    _, results, _ = found
    ladder = results["detach"]["tove"]["0"]
    assert sorted(ladder["order"]) == ["depth", "edges", "normals", "shapes"]
    assert len(ladder["overall"]) == 5
    # Two ways to the same figure: teacher forcing on one side, answers written out by the model on the other.
    assert ladder["overall"][0] == pytest.approx(overall(results, "tove"), abs=0.01)
    assert ladder["overall"][2] == pytest.approx(overall(results, "half"), abs=0.01)
    assert ladder["overall"][4] < ladder["overall"][0]


def test_merged_model_has_exactly_the_clip_only_models_tensors(found):
    from tove_lvlm.checkpoints.tensor_files import read_header

    output, results, _ = found
    lite, plain = (output / "seed0" / place for place in ("tove/merged/lvlm", "clip/model"))
    shapes = [
        {name: (entry.dtype, entry.shape) for name, entry in read_header(folder / "model.safetensors").tensors.items()}
        for folder in (lite, plain)
    ]
    assert shapes[0] == shapes[1]
    configs = [json.loads((folder / "config.json").read_text()) for folder in (lite, plain)]
    for key in ("vision_feature_layer", "vision_feature_select_strategy", "image_seq_length", "image_token_index"):
        assert configs[0][key] == configs[1][key], key
    assert overall(results, "lite") > results["chance"]["overall"] + 0.05
    report = json.loads((output / "seed0" / "tove" / "merged" / "clip" / "merge.json").read_text())
    assert report["gap"] < 0.9


def test_figures_and_tables_are_written_and_nothing_is_done_twice(found):
    output, results, printed = found
    names = {path.name for path in (output / "results").iterdir()}
    assert {"study.json", "study.md"} <= names
    assert sum(name.endswith(".svg") for name in names) == sum(name.endswith(".png") for name in names) >= 3
    again = study(output)
    assert "[1/" not in again
    assert json.loads((output / "results" / "study.json").read_text())["rows"] == results["rows"]
    assert printed.splitlines()[-3] in again
