"""The step benchmark: LLaVA's lengths, and rounds in small; at 7B where there is a GPU."""

import json

import numpy as np
import pytest
import torch
from speed.lengths import MIXTURE, sample_rows

from helpers.benchmarks import run_benchmark


def bench(output, *arguments):
    run_benchmark("train_step.py", *arguments, "--output", output)
    return json.loads(output.read_text())


def test_rows_have_the_lengths_and_shares_that_are_stated():
    rows = sample_rows(40_000, 2048, seed=0)
    thousands = sum(component.thousands for component in MIXTURE)
    text_alone = next(component for component in MIXTURE if not component.has_image)
    share = np.mean([not row.has_image for row in rows])
    assert share == pytest.approx(text_alone.thousands / thousands, abs=0.005)
    lengths = np.array([row.question_tokens + row.answer_tokens for row in rows if row.has_image])
    pictured = [component for component in MIXTURE if component.has_image]
    expected = np.average([c.mean_tokens for c in pictured], weights=[c.thousands for c in pictured])
    assert lengths.mean() == pytest.approx(expected, rel=0.02)
    assert max(row.question_tokens + row.answer_tokens for row in rows) <= 2048


@pytest.mark.full
def test_rounds_in_small(tmp_path):
    options = ["--rounds", 1, "--steps", 1, "--batch-size", 4]
    record = bench(tmp_path / "step.json", "--sizes", "miniature", *options)
    ratios, rows = record["ratios"]["miniature"], record["sizes"]["miniature"]["rows"]
    assert ratios["stock"] == 1
    assert ratios["clip"] < ratios["tove, none of these"]
    assert rows["stock"]["padding"] > 0.1
    assert rows["clip"]["padding"] == rows["tove"]["padding"] == 0
    assert rows["tove, padded"]["padding"] == rows["stock"]["padding"]
    assert all(0 < rows[name]["mfu"] < 1 for name in ("stock", "clip", "tove"))
    counted = [record["sizes"]["miniature"]["rounds"][0][name]["steps"][0] for name in rows]
    assert len({(step["tokens"], step["images"]) for step in counted}) == 1, "every variant trains the same rows"
    assert {"commit", "hardware", "versions", "clock"} <= record.keys()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device with 80 GB or more")
def test_a_7b_step_is_timed(tmp_path):
    options = ["--rounds", 1, "--steps", 2, "--variants", "stock", "clip", "tove", "--bf16"]
    record = bench(tmp_path / "step.json", "--sizes", "7b", *options)
    assert record["ratios"]["7b"]["clip"] < 1
    assert all(row["peak_memory_gb"] > 12 for row in record["sizes"]["7b"]["rows"].values())
