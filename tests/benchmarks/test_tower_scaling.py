"""The benchmark over the number of experts, on the tiny tower: what shares what, and how its ratios are made."""

import json

import pytest
import torch
import tower_scaling

from helpers import tiny_towers
from helpers.benchmarks import run_benchmark
from tove_lvlm.tower.from_yaml import read_tower_yaml


@pytest.fixture(scope="module")
def towers(tiny_tower_yaml):
    torch.manual_seed(0)
    return tower_scaling.make_towers(read_tower_yaml(str(tiny_tower_yaml)))


def test_towers_have_the_first_experts_and_share_every_backbone(towers):
    assert list(towers) == [f"{kind} {k}" for k in (4, 3, 2, 1) for kind in ("gated", "concat")]
    whole = towers["gated 4"]
    for name, tower in towers.items():
        assert tower.expert_names == tiny_towers.EXPERT_NAMES[: int(name.split()[1])]
        assert tower.clip is whole.clip
        assert all(tower.experts[one] is whole.experts[one] for one in tower.expert_names)
    with torch.no_grad():
        tokens = {name: tower(tiny_towers.pixels()).last_hidden_state for name, tower in towers.items()}
    assert torch.equal(tokens["gated 4"], tokens["gated 1"]), "zero start: both are CLIP"
    assert torch.equal(tokens["concat 3"][..., : tiny_towers.WIDTH], tokens["gated 1"])
    # CLIP, a stem of 16 channels for each map, a feature expert of 24 channels
    assert tokens["concat 3"].shape[-1] == tiny_towers.WIDTH + 2 * 16 + 24


def test_counts_are_of_the_towers(towers):
    counts = {name: tower_scaling.counted(tower) for name, tower in towers.items()}
    ratios = [counts[f"gated {k}"]["gflops_over_clip"] for k in (1, 2, 3, 4)]
    assert 1 < ratios[0] < ratios[1] < ratios[2] < ratios[3]
    assert all(counts[f"gated {k}"]["width"] == tiny_towers.WIDTH for k in (1, 2, 3, 4))
    fusion = towers["concat 2"].tove_fusion
    assert counts["concat 2"]["fusion_parameters"] == sum(p.numel() for p in fusion.parameters())


def test_it_measures_and_writes(tiny_tower_yaml, tmp_path):
    output = tmp_path / "scaling.json"
    options = ["--rounds", 1, "--batch-sizes", 1, 2, "--clock", "cpu", "--threads", 1, "--output", output]
    printed = run_benchmark("tower_scaling.py", "--tower", tiny_tower_yaml, *options)
    ((key, entry),) = json.loads(output.read_text()).items()
    assert key.startswith("tower ")
    assert entry["commit"]
    assert list(entry["batches"]) == ["1", "2"]
    assert sum(line.startswith("| 3 |") for line in printed.splitlines()) == 2
    for measured in entry["batches"].values():
        ms = {name: found["median"] for name, found in measured["ms_per_image"].items()}
        assert ms.keys() == {"clip", *tiny_towers.EXPERT_NAMES, *entry["counted"]}
        for of_one_round in ("median", "low", "high", "of_lowest"):
            over_clip = measured["over_clip"]["concat 2"][of_one_round]
            assert over_clip == pytest.approx(ms["concat 2"] / ms["clip"], rel=0.01)
            over_all = measured["over_backbones"]["gated 2"][of_one_round]
            assert over_all == pytest.approx(ms["gated 2"] / (ms["clip"] + ms["depth"] + ms["normals"]), rel=0.01)
