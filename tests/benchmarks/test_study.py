"""The miniature study's parts: what its rows are, how its jobs run, and how its figures are put together."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from study import plan, pool, rows, summary, training
from study.half_blind import mirror

FULL = {row.id: row for row in rows.FULL}


def test_every_row_is_there_once_and_its_tower_can_be_built(tmp_path):
    from tove_lvlm.tower.build import build_tower

    assert len(FULL) == len(rows.FULL)
    for row in rows.FULL:
        if row.vision_tower == "tove" and row.group != "data":
            tower = build_tower(training.write_tower(row, tmp_path / row.id))
            assert tower.expert_names == list(row.experts)
            assert tower(torch.randn(1, 3, 64, 64)).last_hidden_state.shape[1] == 64


def test_matched_control_has_as_many_trainable_parameters(tmp_path):
    sizes = {
        row_id: training.fusion_size(yaml.safe_load(training.write_tower(FULL[row_id], tmp_path / row_id).read_text()))
        for row_id in ("tove", "matched")
    }
    assert abs(sizes["matched"] / sizes["tove"] - 1) < 0.001


def test_fractions_are_nested_and_shared_by_both_towers(tmp_path):
    (tmp_path / "train").mkdir()
    for stage in training.STAGES:
        (tmp_path / "train" / f"{stage}.json").write_text(json.dumps([{"id": i} for i in range(200)]))
    training.write_fractions(tmp_path)
    sizes = {}
    for fraction in rows.FRACTIONS:
        found = json.loads(training.data_file(tmp_path, "finetune", fraction).read_text())
        assert [record["id"] for record in found] == list(range(len(found)))
        sizes[fraction] = len(found)
    assert sizes == {"1/100": 2, "1/32": 6, "1/10": 20, "1/3": 67}


def test_half_blind_experts_are_right_on_their_own_side_only():
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    left, right = mirror(pixels, "left"), mirror(pixels, "right")
    assert torch.equal(left[..., :32], pixels[..., :32])
    assert torch.equal(right[..., 32:], pixels[..., 32:])
    assert torch.equal(left[..., 32:], pixels[..., :32].flip(-1))
    assert torch.equal(right[..., :32], pixels[..., 32:].flip(-1))


# ---- jobs ----


def test_jobs_wait_for_what_they_need_and_are_not_done_twice(tmp_path):
    calls = tmp_path / "calls"

    def work(name: str) -> dict:
        with calls.open("a") as file:
            file.write(name)
        return {"name": name}

    first, second = tmp_path / "a" / "first.json", tmp_path / "a" / "second.json"
    jobs = [
        pool.Job(result=second, work=lambda: work("2") | pool.read_result(first), needs=(first,)),
        pool.Job(result=first, work=lambda: work("1")),
    ]
    said = []
    pool.run_jobs(jobs, 2, said.append)
    pool.run_jobs(jobs, 2, said.append)
    assert calls.read_text() == "12"
    assert pool.read_result(second) == {"name": "1"}
    assert len(said) == 2


def test_failed_job_shows_its_log_and_leaves_no_result(tmp_path):
    def work() -> dict:
        print("about to fail", flush=True)
        raise ValueError("no such thing")

    job = pool.Job(result=tmp_path / "row" / "score.json", work=work)
    with pytest.raises(pool.JobFailed, match=r"(?s)score failed, see .*score\.log.*no such thing"):
        pool.run_jobs([job], 1, print)
    assert not job.result.exists()
    assert "about to fail" in job.log.read_text()


def test_job_that_can_never_start_is_named(tmp_path):
    job = pool.Job(result=tmp_path / "a.json", work=dict, needs=(tmp_path / "never.json",))
    with pytest.raises(pool.JobFailed, match=r"a.*waits for .*never\.json"):
        pool.run_jobs([job], 1, print)


# ---- figures ----


def write(output: Path, seed: int, row_id: str, name: str, value: dict) -> None:
    path = plan.row_folder(output, seed, row_id) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def scored(overall: float) -> dict:
    return {"overall": overall, "families": {"exist": {"accuracy": overall, "n": 10}}}


def test_figures_are_collected_over_seeds_and_missing_rows_left_out(tmp_path):
    for seed, (clip, tove) in enumerate([(0.7, 0.9), (0.8, 0.94)]):
        write(tmp_path, seed, "clip", "score.json", scored(clip))
        write(tmp_path, seed, "tove", "score.json", scored(tove))
        write(tmp_path, seed, "tove", "half.json", scored(tove - 0.1))
        write(tmp_path, seed, "tove_1/10", "score.json", scored(clip))
    ladder = {"order": ["b", "a"], "overall": [0.9, 0.8, 0.3], "single": {"a": 0.5, "b": 0.8}}
    write(tmp_path, 0, "tove", "ladder.json", ladder)
    results = summary.collect(tmp_path, rows.FULL, [0, 1], scored(0.4) | {"overall": {"accuracy": 0.4}}, {})
    assert set(results["rows"]) == {"clip", "tove", "half"}
    assert results["rows"]["half"]["seeds"]["1"]["overall"] == pytest.approx(0.84)
    assert results["data_curve"]["tove"] == {"1/10": {"0": 0.7, "1": 0.8}, "1": {"0": 0.9, "1": 0.94}}
    assert results["detach"] == {"tove": {"0": ladder}}
    text = summary.markdown(results)
    assert "| CLIP-only | 75.0 ±5.0 | 75.0 |" in text
    assert "| ToVE, all experts | 92.0 ±2.0 | 92.0 |" in text
    assert "| chance | 40.0 | 40.0 |" in text
    assert "| on | 0 | b, a | 90.0 | 80.0 / 30.0 |" in text
