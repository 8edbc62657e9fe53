"""The benchmarks of costs, run small: what they write, not how fast this machine is."""

import importlib.util
import json

import pytest

from helpers.paths import ROOT


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def arguments(monkeypatch):
    return lambda *given: monkeypatch.setattr("sys.argv", ["benchmark.py", *map(str, given)])


def test_overhead_is_whole_over_sum(arguments, tiny_tower_yaml, tmp_path):
    output = tmp_path / "overhead.json"
    arguments("--tower", tiny_tower_yaml, "--rounds", 2, "--batch-size", 1, "--output", output)
    assert load("tower_overhead").main() == 0
    ((key, entry),) = json.loads(output.read_text()).items()
    assert key.startswith("tower ")
    assert list(entry["ms_per_image"]) == ["tower", "clip", "depth", "normals", "shapes", "cnn"]
    low, high = entry["ratio_range"]
    assert 0 < low <= entry["ratio"] <= high
    assert entry["commit"]
    assert entry["hardware"]


def test_backbones_alone_do_what_they_do_in_the_tower(tiny_tower):
    """Same pixels and same outputs, so that their times may be summed."""
    import torch

    from helpers import tiny_towers

    seen = {}
    for name, expert in tiny_tower.experts.items():
        expert.register_forward_hook(lambda m, args, out, name=name: seen.setdefault(name, []).append(out))
    tiny_tower(tiny_towers.pixels())
    calls = load("tower_overhead").backbone_calls(tiny_tower, tiny_towers.pixels())
    assert list(calls) == ["clip", *tiny_tower.expert_names]
    for call in calls.values():
        call()
    assert all(torch.equal(*both) for both in seen.values())


def test_cost_table_keeps_other_machines_columns_while_the_tower_is_the_same(arguments, tiny_tower_yaml, tmp_path):
    module, output = load("cost_table"), tmp_path / "costs.json"
    arguments("--towers", tiny_tower_yaml, "--measure", "--repeats", 1, "--output", output)
    assert module.main() == 0
    first = json.loads(output.read_text())
    (machine,) = first["runs"]
    assert first["towers"]["tower"]["ms"][machine]["tower"] > 0
    arguments("--towers", tiny_tower_yaml, "--output", output)
    assert module.main() == 0
    assert json.loads(output.read_text())["towers"] == first["towers"]
    table = output.with_suffix(".md").read_text().splitlines()
    assert table[0].endswith("| ms on NVIDIA H200 |")
    assert "| depth, normals, shapes, cnn | 16 |" in table[2]
    assert table[2].endswith("|  |"), "no H200 was at hand"


def test_cost_table_names_what_it_leaves_out(arguments, tmp_path, capsys):
    broken = tmp_path / "broken.yaml"
    broken.write_text("clip: {pretrained: none}\n")
    arguments("--towers", broken, "--output", tmp_path / "costs.json")
    assert load("cost_table").main() == 1
    assert "broken.yaml: left out: " in capsys.readouterr().err
