"""What more ranks bring: dealing, counting and estimating by hand; real runs on two ranks in the long suite."""

import json

import numpy as np
import pytest
from speed.balance import Dealt, balance, deal
from speed.estimate import SOURCES, Assumed, Counted, count, estimate, step_bytes, step_flops
from speed.lengths import RowLength, sample_rows

from helpers.benchmarks import run_benchmark
from helpers.paths import ROOT

COUNTED = Counted(
    frozen_tower_flops=100,
    trained_image_flops=10,
    llm_token_flops=2,
    lora_token_flops=1,
    attention_flops=0.5,
    image_tokens=4,
    trained_parameters=1000,
    gathered_parameters=8000,
)
DEALT = Dealt(*(np.array([values]) for values in ([2, 0], [10, 6], [52, 20], [12, 8], [72, 32])))
"""One step of two ranks."""


def test_flops_of_a_step_follow_the_rules():
    # 2 images x (100 + 3 x 10), tokens x (3 x 2 + 4 x 1), 4 x 0.5 x squares; texts alone run the tower once
    assert step_flops(COUNTED, DEALT, padded=False).tolist() == [[260 + 100 + 104, 130 + 60 + 40]]
    assert step_flops(COUNTED, DEALT, padded=True).tolist() == [[260 + 120 + 144, 130 + 80 + 64]]


def test_bytes_of_a_step():
    assert step_bytes(COUNTED, 2) == 1000 * 2 * 2
    assert step_bytes(COUNTED, 3) == 1000 * 2 * 2 + 8000 * 2 * 2


def test_an_estimate_divides_by_what_is_assumed():
    assumed = Assumed(
        peak_tflops=1e-10, utilisation=0.5, inside_gb_per_s=4e-6, between_gb_per_s=1e-6, network_share=0.5
    )
    found = estimate(COUNTED, DEALT, assumed, ranks=2, rows=4, zero=2)
    slowest, mean = 464 / 50, (464 + 230) / 2 / 50
    sending = 4000 / 2 / 2000
    assert found["compute_s"] == pytest.approx(mean, abs=1e-4)
    assert found["slowest_over_mean_flops"] == pytest.approx(slowest / mean, abs=1e-4)
    assert found["communication_s"] == pytest.approx(sending)
    assert found["steps_per_s"]["low"] == pytest.approx(1 / (slowest + sending), abs=1e-4)
    assert found["steps_per_s"]["high"] == pytest.approx(1 / slowest, abs=1e-4)
    assert found["rows_per_s"]["low"] == pytest.approx(4 / (slowest + sending), abs=0.1)
    assert found["efficiency"]["high"] == pytest.approx(mean / slowest, abs=1e-4)
    padded = estimate(COUNTED, DEALT, assumed, ranks=2, rows=4, zero=2, padded=True)
    assert padded["efficiency"]["high"] == pytest.approx(mean / (524 / 50), abs=1e-4), "padding is no use"
    between = estimate(COUNTED, DEALT, Assumed(**{**vars(assumed), "gpus_per_machine": 1}), ranks=2, rows=4, zero=2)
    assert between["communication_s"] == pytest.approx(4 * sending)


def test_the_sampler_deals_every_row_once_and_evenly():
    rows = [RowLength(1, length, True) for length in range(1, 65)]
    dealt = deal(rows, ranks=4, batch_size=4, image_tokens=10, max_tokens=50)
    assert dealt.tokens_SR.shape == (4, 4)
    lengths = [min(1 + length + 10, 50) for length in range(1, 65)]
    assert dealt.tokens_SR.sum() == sum(lengths)
    assert dealt.squares_SR.sum() == sum(length**2 for length in lengths)
    assert dealt.images_SR.tolist() == [[4] * 4] * 4
    assert (dealt.places_SR >= dealt.tokens_SR).all()
    found = balance(dealt)
    assert 1 <= found["slowest_over_mean"] < 1.05
    assert found["padding_share"] == pytest.approx(1 - dealt.tokens_SR.sum() / dealt.places_SR.sum(), abs=1e-4)


def test_fewer_rows_a_rank_are_dealt_less_evenly():
    rows = sample_rows(4096, 2048, seed=0)
    found = [balance(deal(rows, ranks, 128 // ranks, 576, 2048)) for ranks in (8, 32, 64)]
    slowest = [one["slowest_over_mean"] for one in found]
    assert 1 <= slowest[0] < 1.02 < slowest[1] < slowest[2]
    assert found[0]["padding_share"] > found[2]["padding_share"] > 0
    assert all(one["padded_slowest_over_mean"] > one["slowest_over_mean"] for one in found)


def test_the_7b_project_is_counted():
    counted = count(ROOT / "projects" / "tove_vicuna_7b" / "finetune.yaml")
    assert counted.image_tokens == 576
    layers = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert counted.llm_token_flops / 2 == pytest.approx(layers + 4096 * 32000, rel=0.001)
    lora = 32 * 128 * (4 * 2 * 4096 + 3 * (4096 + 11008))
    assert counted.lora_token_flops == 2 * lora
    assert counted.attention_flops == 2 * 32 * 4096
    assert lora < counted.trained_parameters < 1.2 * lora
    # the language model's matrices, and a few of projector and experts
    assert counted.gathered_parameters == pytest.approx(layers + 2 * 4096 * 32000, rel=0.01)


def test_it_writes_every_assumption(tmp_path):
    output = tmp_path / "scaling.json"
    options = ["--only", "balance", "estimate", "--rows", 4096, "--ranks", 8, 16, "--peak-tflops", 312]
    printed = run_benchmark("scaling.py", *options, "--output", output)
    record = json.loads(output.read_text())
    assert record.keys() == {"balance", "estimate"}
    assumed = record["estimate"]["assumed"]
    assert assumed.keys() == SOURCES.keys() == vars(Assumed()).keys()
    assert assumed["peak_tflops"]["value"] == 312
    assert all(one["source"] for one in assumed.values())
    assert record["estimate"]["project"] == "projects/tove_vicuna_7b/finetune.yaml"
    settings = record["estimate"]["settings"]
    assert len(settings) == 2 * 2 * 3
    by_hand = settings["growing, 16, zero2"]
    assert by_hand["compute_s"] == pytest.approx(by_hand["pflops_per_step"] / 16 / (0.312 * 0.4), rel=0.01)
    assert settings["fixed, 8, zero2"]["pflops_per_step"] < settings["fixed, 8, zero2, padded"]["pflops_per_step"]
    assert settings["fixed, 16, zero3"]["efficiency"]["low"] < settings["fixed, 16, zero2"]["efficiency"]["low"]
    assert "| fixed, 16 |" in printed


@pytest.mark.full
def test_one_and_two_ranks_are_timed(tmp_path):
    output = tmp_path / "scaling.json"
    options = ["--only", "measured", "--batch-size", 2, "--steps", 2, "--rounds", 1]
    run_benchmark("scaling.py", *options, "--output", output)
    settings = json.loads(output.read_text())["measured"]["settings"]
    assert list(settings) == ["zero2, 1", "zero2, 2", "zero3, 1", "zero3, 2"]
    for name, found in settings.items():
        ranks = int(name[-1])
        assert found["rows_per_step"] == 2 * ranks
        assert found["steps"] == 2
        assert (found["slowest_over_mean_tokens"] == 1) == (ranks == 1)
        assert found["rows_per_s"]["high"] == pytest.approx(2 * ranks / found["wall_s"]["low"], rel=0.01)
