"""`benchmarks/another_base.py`: a SigLIP is trained, enriched, taken apart and merged into."""

import json

import pytest

from helpers.benchmarks import run_benchmark


@pytest.mark.full
def test_a_quick_run_goes_the_whole_way(tmp_path):
    run_benchmark("another_base.py", "--quick", "--workers", 2, "--output", tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results" / "another_base.json").read_text())
    assert list(results["variants"]) == ["base", "tove", "half", "lite"]
    assert len(results["variants"]["half"]["detached"]) == 2
    assert results["siglip"]["heldout"]["probe_row"] > 0.9, "its positions are fixed, so any tokens tell the row"
    config = json.loads((tmp_path / "out" / "seed0" / "tove" / "merged" / "lvlm" / "config.json").read_text())
    assert config["vision_config"]["model_type"] == "siglip_vision_model"
    assert config["vision_feature_select_strategy"] == "full"
