"""The benchmark of reading pictures, on small ones: what is handed on, and how far other decoders are from it."""

import importlib
import json

import pytest
import torch

from helpers.benchmarks import run_benchmark

SIDE = 28


@pytest.fixture(scope="module")
def bench():
    return importlib.import_module("input")


@pytest.mark.parametrize("aspect_ratio", ["pad", "square"])
def test_every_way_reads_the_same_pictures(bench, tmp_path, aspect_ratio):
    names = bench.write_pictures(tmp_path, "160x120.jpg", 2)
    processor = bench.make_processor(SIDE)
    ways = bench.readers_of(tmp_path, names, processor, aspect_ratio)
    batches = {way: ways[way]() for way in (*bench.SETTINGS, *bench.OTHERS)}
    assert {tuple(batch.shape) for batch in batches.values()} == {(2, 3, SIDE, SIDE)}
    assert torch.equal(ways["table"](), batches["floats"]), "the bytes stand for LLaVA's own pixels"
    for way, largest in {"default": 1, "default, reduced": 12, "torchvision": 3, "torchvision resizes": 3}.items():
        levels = (batches[way].int() - batches["bytes"].int()).abs()
        assert levels.max() <= largest
    assert not torch.equal(batches["bytes"][0], batches["bytes"][1])
    assert ways["decoding alone"]()[0].size == (160, 120)
    assert ways["decoding alone, reduced"]()[0].size == (80, 60)


def test_it_measures_and_writes(tmp_path):
    output = tmp_path / "input.json"
    kinds = ["160x120.jpg", "64x48.png"]
    printed = run_benchmark("input.py", "--pictures", *kinds, "--side", SIDE, "--rounds", 2, "--output", output)
    ((key, entry),) = json.loads(output.read_text()).items()
    assert key.endswith(f"side {SIDE}")
    assert entry["commit"]
    assert entry["threads"] == 1
    assert list(entry["pictures"]) == kinds
    assert len(printed.splitlines()) == 2 + 11 + 1
    for found in entry["pictures"].values():
        assert found["bytes_handed_on"]["default"] == 3 * SIDE * SIDE
        assert found["bytes_handed_on"]["floats"] == 4 * 3 * SIDE * SIDE
        for rate in found["pictures_per_cpu_s"].values():
            assert 0 < rate["low"] <= rate["median"] <= rate["high"]
    jpeg, png = entry["pictures"].values()
    assert jpeg["levels_from_bytes"]["default, reduced"]["mean"] > 0.01
    assert png["levels_from_bytes"]["default, reduced"]["largest"] <= 1, "only a JPEG can be decoded at a reduced size"
    assert png["bits_per_pixel"] > jpeg["bits_per_pixel"]
