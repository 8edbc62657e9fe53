"""The step benchmark: in small here, at 7B where there is a GPU."""

import json
import runpy
import sys

import pytest
import torch

from helpers.paths import ROOT


def bench(monkeypatch, output, *arguments):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["train_step.py", *map(str, arguments), "--output", str(output)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "benchmarks" / "train_step.py"), run_name="__main__")
    assert ended.value.code == 0
    return json.loads(output.read_text())


@pytest.mark.full
def test_both_variants_are_timed_in_small(monkeypatch, tmp_path):
    record = bench(
        monkeypatch,
        tmp_path / "step.json",
        *("--cfg-path", "projects/miniature/finetune.yaml", "--options", "model.tower=projects/miniature/tower.yaml"),
        *("--stage", "finetune", "--max-batch", 2, "--steps", 2),
    )
    clip, tove = record["rows"]
    assert (clip["variant"], tove["variant"]) == ("clip", "tove")
    for row in (clip, tove):
        assert row["batch"] == 2
        assert row["tokens_per_sample"] == 64 + 256
        assert row["tokens_per_s"] == pytest.approx(320 * row["images_per_s"])
        assert row["step_seconds"]["min"] <= row["step_seconds"]["median"] <= row["step_seconds"]["max"]
    # LoRA and projector are the same; the fusion comes on top.
    assert tove["trained_parameters"] > clip["trained_parameters"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device with 80 GB or more")
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_7b_step_fits_and_both_variants_are_timed(monkeypatch, tmp_path, stage):
    record = bench(
        monkeypatch, tmp_path / "step.json", "--cfg-path", f"projects/tove_vicuna_7b/{stage}.yaml", "--stage", stage
    )
    assert all(row["batch"] >= 1 for row in record["rows"])
    assert all(row["peak_memory_gib"] > 12 for row in record["rows"])
