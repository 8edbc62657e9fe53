"""The cache's benchmark, on a tiny tower."""

import json
import runpy
import sys

import pytest

from helpers.paths import ROOT


def test_it_measures_and_writes(tiny_tower_yaml, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    output = tmp_path / "cache.json"
    arguments = ["--tower", tiny_tower_yaml, "--batch-size", 2, "--batches", 2, "--rounds", 1, "--output", output]
    monkeypatch.setattr(sys, "argv", ["cache.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "benchmarks" / "cache.py"), run_name="__main__")
    assert ended.value.code == 0
    record = json.loads(output.read_text())
    # Tokens and features of the paper's hub: 3 of 576 x 1024, and three experts' maps and features.
    assert record["planned"]["bytes_per_image"]["float16"] > 3 * 576 * 1024 * 2
    (entry,) = [value for key, value in record.items() if key != "planned"]
    assert entry["ms_per_image"].keys() == {"compute", "fuse", "hash", "file_read", "file_write"}
    stored = entry["stored_as"]
    assert stored["float32"]["t_fuse_error"] == 0
    assert 0 < stored["float16"]["t_fuse_error"] < stored["int8"]["t_fuse_error"] < 0.02
    assert stored["float32"]["bytes_per_image"] > 1.7 * stored["float16"]["bytes_per_image"]
