"""The miniature study's parts: what its rows are, how its jobs run, and how its figures are put together."""

import json
import math
import statistics
from pathlib import Path

import pytest
import torch
import yaml
from study import captions, choices, comparison, encoders, plan, pool, rows, summary, tables, training
from study import jobs as study_jobs
from study.half_blind import mirror

from tove_lvlm.eval.families import FamilyQuestion

FULL = {row.id: row for row in rows.FULL}


def test_every_row_is_there_once_and_its_tower_can_be_built(tmp_path):
    from tove_lvlm.tower.build import build_tower

    assert len(FULL) == len(rows.FULL)
    for row in rows.FULL:
        if row.vision_tower == "tove" and row.group not in ("data", "captioner") and not row.encoder:
            tower = build_tower(training.write_tower(row, tmp_path / row.id))
            assert tower.expert_names == list(row.experts)
            assert tower(torch.randn(1, 3, 64, 64)).last_hidden_state.shape[1] == 64


def test_a_second_base_encoder_is_trained_before_its_rows_and_lies_in_their_towers(tmp_path):
    row, world = FULL["rich_concat"], tmp_path / "world"
    with pytest.raises(ValueError, match="base encoder of its own"):
        training.write_tower(row, tmp_path / "row")
    tower = yaml.safe_load(training.write_tower(row, tmp_path / "row", world).read_text())
    assert tower["clip"]["pretrained"] == str(tmp_path / "rich_clip")
    assert tower["fusion"]["kind"] == "concat"
    found = study_jobs.study_jobs(rows.FULL, [], ["second_base"], [0], world, tmp_path, STEPS)
    assert "rich_clip.json" in results_of(found, tmp_path)
    first = next(job for job in found if job.result == tmp_path / "trials/rich_tove-rate_1-budget_1/pretrain.json")
    assert encoders.record(tmp_path, "rich_clip") in first.needs
    others = study_jobs.study_jobs(rows.FULL, [], ["gate"], [0], world, tmp_path, STEPS)
    assert "rich_clip.json" not in results_of(others, tmp_path)


def test_matched_control_has_as_many_trainable_parameters(tmp_path):
    sizes = {
        row_id: training.fusion_size(yaml.safe_load(training.write_tower(FULL[row_id], tmp_path / row_id).read_text()))
        for row_id in ("tove", "matched")
    }
    assert abs(sizes["matched"] / sizes["tove"] - 1) < 0.001


def test_first_scenes_are_nested_and_no_more_than_there_are(tmp_path):
    (tmp_path / "train").mkdir()
    for kind in rows.VICUNA:
        records = [{"id": i, "image": f"{i}.png"} for i in range(200)]
        (tmp_path / "train" / f"{kind}.json").write_text(json.dumps(records))
    statements = [{"image": f"{i // 2}.png", "caption": str(i)} for i in range(400)]
    (tmp_path / "train" / "statements.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in statements))
    training.write_first_scenes(tmp_path, [30, 200])
    for scenes in (30, 200):
        found = json.loads(training.data_file(tmp_path, "finetune", scenes).read_text())
        assert [record["id"] for record in found] == list(range(scenes))
    assert not training.statements_file(tmp_path, 30).exists()
    training.write_first_scenes(tmp_path, [30], rows.BASE)
    lines = training.statements_file(tmp_path, 30).read_text().splitlines()
    assert [json.loads(line)["caption"] for line in lines] == [str(i) for i in range(60)]
    options = training.data_options("pretrain_base", tmp_path, 30)
    assert [option.split("=")[0] for option in options[:2]] == ["data.mix.0.files", "data.mix.0.image_folder"]
    assert options[4] == f"data.mix.2.files=[{training.statements_file(tmp_path, 30)}]"
    with pytest.raises(ValueError, match="300 scenes are wanted of .*train, which has 200"):
        training.write_first_scenes(tmp_path, [300])


def test_a_rate_multiplies_every_learning_rate_of_the_stage():
    assert training.rate_options("finetune", 0.5) == ["train.learning_rate=0.001", "train.mm_projector_lr=0.0005"]
    assert training.rate_options("pretrain", 2.0) == ["train.learning_rate=0.004"]
    assert training.rate_options("pretrain", 1.0) == []
    assert training.rate_options("pretrain_base", 0.5) == ["train.learning_rate=0.001", "train.fusion_lr=0.001"]


def test_right_answers_are_counted_by_scene():
    asked = [("a.png", "red"), ("b.png", "2"), ("a.png", "yes")]
    questions = [
        FamilyQuestion(question_id=str(i), image=image, text="?", answer=answer, family="f")
        for i, (image, answer) in enumerate(asked)
    ]
    assert training.right_by_scene(questions, ["Red.", "3", "yes"]) == [2, 0]


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


# ---- choices ----


STEPS = {"pretrain": 30, "finetune": 240, "merge": 10, "retune": 10, "rich_clip": 10}


def write(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def scored(overall: float, by_scene: str = "55") -> dict:
    families = {name: {"accuracy": overall, "n": 20} for name in ("exist", "leftright", "rel_left")}
    return {"overall": overall, "families": families, "by_scene": by_scene, "commit": "abc", "hardware": "cpu"}


def run(job: pool.Job) -> dict:
    write(job.result, job.work())
    return pool.read_result(job.result)


def test_the_rate_and_then_the_budget_that_validate_best_are_taken(tmp_path):
    few = FULL["tove_300"]
    for trial, overall in zip(choices.trials(FULL["tove"]), (0.7, 0.9, 0.8), strict=True):
        write(trial.folder(tmp_path) / "validation.json", scored(overall))
    with pytest.raises(FileNotFoundError):
        choices.chosen(tmp_path, few)
    run(choices.choice_job(FULL["tove"], tmp_path))
    assert choices.chosen(tmp_path, FULL["tove"]) == {"rate": 1.0, "budget": 1.5}
    assert choices.Trial(row=FULL["tove"], rate=1.0, budget=1.5) in choices.budget_trials(FULL["tove"])
    for trial, overall in zip(choices.trials(few), (0.6, 0.5), strict=True):
        assert trial.rate is None
        write(trial.folder(tmp_path) / "validation.json", scored(overall))
    job = choices.choice_job(few, tmp_path)
    assert run(job) == {
        "trial": "tove_300-rate_chosen-budget_0.5",
        "rate": 1.0,
        "budget": 0.5,
        "validation": {"tove_300-rate_chosen-budget_0.5": 0.6, "tove_300-rate_chosen-budget_1": 0.5},
    }
    assert choices.chosen(tmp_path, few) == {"rate": 1.0, "budget": 0.5}


def test_no_row_has_toves_rate_but_tove_with_other_numbers_of_scenes():
    for row in rows.FULL:
        if row.group not in ("main", "data") or row.vision_tower == "clip":  # the captioner has its own too
            assert row.rate_from != "tove", row.id
        assert FULL[row.rate_from].rate_from == row.rate_from
        assert row.scenes <= max(rows.CLIP_SCENES)


def test_every_budget_trial_lies_where_the_choice_looks_for_it():
    ids = {trial.id for trial in choices.budget_trials(FULL["clip"])}
    assert len(ids) == 5
    assert ids & {trial.id for trial in choices.trials(FULL["clip"])} == {"clip-rate_1-budget_1"}
    every = choices.wanted_trials(rows.FULL, rows.MAIN)
    assert len({trial.id for trial in every}) == len(every)


def test_first_seed_of_a_row_with_a_choice_is_the_trial_and_is_not_trained_again(tmp_path):
    row = FULL["clip"]
    write(choices.choice_file(tmp_path, "clip"), {"trial": "clip-rate_2-budget_1", "rate": 2.0, "budget": 1.0})
    trial = choices.Trial(row=row, rate=2.0, budget=1.0).folder(tmp_path)
    for stage in rows.VICUNA:
        write(trial / f"{stage}.json", {"loss": 0.5, "steps": 7})
    (trial / plan.TRAINED).mkdir()
    first, second, score = choices.row_jobs(row, 0, tmp_path / "world", tmp_path, STEPS)
    assert first.needs == (choices.choice_file(tmp_path, "clip"),)
    assert run(first) == run(second) == {"loss": 0.5, "steps": 7}
    assert (tmp_path / "seed0" / "clip" / plan.TRAINED).resolve() == (trial / plan.TRAINED).resolve()
    assert score.needs == (second.result,)


def test_a_stage_is_trained_with_what_was_chosen(tmp_path, monkeypatch):
    given = {}

    def train(stage, row, seed, world, folder, steps, **more):
        given[stage] = (row.id, seed, folder.name, more)
        return {}

    monkeypatch.setattr(training, "train", train)
    write(choices.choice_file(tmp_path, "no_dropout"), {"trial": "gone", "rate": 0.5, "budget": 1.5})
    for job in choices.row_jobs(FULL["no_balance"], 2, tmp_path / "world", tmp_path, STEPS)[:2]:
        run(job)
    settings = {"rate": 0.5, "budget": 1.5}
    assert given == {stage: ("no_balance", 2, "no_balance", settings) for stage in rows.VICUNA}
    write(choices.choice_file(tmp_path, "caption_clip"), {"trial": "gone", "rate": 2.0, "budget": 1.5})
    *stages, score = choices.row_jobs(FULL["caption_clip"], 1, tmp_path / "world", tmp_path, STEPS)
    (stage,) = stages
    run(stage)
    assert given["pretrain_base"] == ("caption_clip", 1, "caption_clip", {"rate": 2.0, "budget": 1.5})
    assert score.work.func is captions.evaluate


def test_a_folder_that_does_not_say_what_its_runs_are_of_is_not_gone_on_with(tmp_path):
    (tmp_path / "out" / "seed0").mkdir(parents=True)
    with pytest.raises(SystemExit, match="do not say of which scenes"):
        plan.earlier_results(tmp_path / "out", tmp_path / "study.json", STEPS)
    write(tmp_path / "out" / "setting.json", STEPS)
    write(tmp_path / "study.json", {"setting": STEPS, "rows": {}})
    assert plan.earlier_results(tmp_path / "out", tmp_path / "study.json", STEPS)["rows"] == {}
    with pytest.raises(SystemExit, match="other scenes or steps"):
        plan.earlier_results(tmp_path / "out", tmp_path / "study.json", {"pretrain": 1})


def results_of(jobs: list[pool.Job], folder: Path) -> set[str]:
    return {job.result.relative_to(folder).as_posix() for job in jobs}


def test_only_what_a_missing_result_needs_is_done(tmp_path):
    def jobs(*groups: str) -> set[str]:
        found = study_jobs.study_jobs(rows.QUICK, [], groups, [0], tmp_path / "world", tmp_path, STEPS)
        return results_of(found, tmp_path)

    every = jobs("main", "gate", "data")
    assert {"choices/clip.json", "choices/tove.json", "choices/tove_100.json", "seed0/tove/merge.json"} <= every
    assert "seed0/gate_constant/score.json" in every
    gates = jobs("gate")
    assert "choices/tove.json" in gates
    assert not {result for result in gates if "clip" in result or result.startswith("seed0/tove")}
    for trial in choices.trials(rows.QUICK[1]):
        write(trial.folder(tmp_path) / "validation.json", scored(0.5))
    left = jobs("gate")
    assert not {result for result in left if result.startswith("trials/")}
    assert left == {
        "choices/tove.json",
        *(f"seed0/gate_constant/{name}.json" for name in ("pretrain", "finetune", "score", "ladder")),
    }


# ---- summary ----


def test_a_difference_has_the_variance_of_scenes_and_of_seeds():
    ours = {"0": scored(0.5, "5432"), "1": scored(0.5, "4455")}
    theirs = {"0": scored(0.5, "4433"), "1": scored(0.5, "3355"), "2": scored(0.5, "1111")}
    # differences by scene and seed: (1, 0, 0, -1) and (1, 1, 0, 0); 60 questions
    found = comparison.difference(ours, theirs)
    by_scene = [1, 0.5, 0, -0.5]
    squared = 4 * statistics.variance(by_scene) / 60**2 + statistics.variance([0, 2 / 60]) / 2
    half = 1.959964 * math.sqrt(squared)
    assert found == {
        "difference": pytest.approx(100 / 60, abs=0.01),
        "low": pytest.approx(100 * (1 / 60 - half), abs=0.01),
        "high": pytest.approx(100 * (1 / 60 + half), abs=0.01),
        "seeds": 2,
    }
    assert comparison.difference(ours, {"7": scored(0.5)}) is None
    assert comparison.scene_counts({"by_scene": comparison.pack_counts([0, 9, 15])}) == [0, 9, 15]
    with pytest.raises(ValueError, match="16 right answers"):
        comparison.pack_counts([16])


def test_results_are_collected_over_seeds_and_put_back_elsewhere(tmp_path):
    there = tmp_path / "there"
    trials = choices.wanted_trials(rows.FULL, rows.MAIN)
    for seed, (clip, tove) in enumerate([(0.7, 0.9), (0.8, 0.94)]):
        folder = there / f"seed{seed}"
        write(folder / "clip" / "score.json", scored(clip, "78"))
        write(folder / "tove" / "score.json", scored(tove, "99"))
        write(folder / "tove" / "half.json", scored(tove - 0.1))
        write(folder / "tove_100" / "score.json", scored(clip))
        write(folder / "caption_tove_100" / "score.json", scored(clip) | {"cider": 100 * clip})
    write(choices.choice_file(there, "tove_100"), {"trial": "x", "rate": 1.0, "budget": 0.25, "validation": {"x": 0.5}})
    for trial in choices.budget_trials(FULL["clip"])[:2]:
        write(trial.folder(there) / "validation.json", scored(trial.budget))
    ladder = {
        "order": ["b", "a"],
        "overall": [0.9, 0.8, 0.3],
        "mean_term": [0.9, 0.85, 0.5],
        "mean_token": [0.9, 0.7, 0.2],
        "single": {"a": 0.5, "b": 0.8},
        "loss_change": {"a": 1.0, "b": 0.1},
        "signals": {"a": {"gate_mass": 0.6}, "b": {"gate_mass": 0.4}},
    }
    write(there / "seed0" / "tove" / "ladder.json", ladder)
    chance = scored(0.4) | {"overall": {"accuracy": 0.4}}

    def collect(output: Path) -> dict:
        return summary.collect(output, rows.FULL, rows.MAIN, trials, [0, 1], chance)

    results = collect(there)
    assert list(results["rows"]) == ["clip", "tove", "tove_100", "caption_tove_100", "half"]
    assert results["rows"]["half"]["seeds"]["1"]["overall"] == pytest.approx(0.84)
    assert results["rows"]["clip"]["against_tove"]["difference"] == pytest.approx(-100 * 3 / 60, abs=0.01)
    assert "against_tove" not in results["rows"]["tove"]
    assert results["detach"] == {"tove": {"0": ladder}}
    assert list(results["budgets"]["clip"]) == ["0.222", "0.444"]
    axis = summary.data_axis(results, {"pretrain": 300, "finetune": 2400, "pretrain_base": 1000})
    assert axis["tove"]["100"] == {"overall": 75.0, "spread": 10.0, "steps": 675, "seeds": 2}
    assert axis["clip"]["3000"]["steps"] == 2700
    assert list(axis["clip"]) == ["3000"]
    captioner = {"overall": 75.0, "spread": 10.0, "steps": 1000, "seeds": 2, "cider": 75.0}
    assert axis["captioner"] == {"clip": {}, "tove": {"100": captioner}}
    text = tables.markdown(results, axis)
    assert "| CLIP-only | 2 | 75.0 ±5.0 | -5.0" in text
    assert "| ToVE, all experts | 2 | 92.0 ±2.0 |  | 92.0 |" in text
    assert "| chance |  | 40.0 |  | 40.0 |" in text
    assert "| ToVE | 75.0 ±5.0 (675 steps) | 92.0 ±2.0 (2700 steps) |" in text
    assert "| base model, objects named in its captions, % | 100 |" in text
    assert "| ToVE | 75.0 ±5.0, CIDEr 75 (1000 steps) |" in text
    assert "captioner |" not in text
    assert "| tove | 0 | b, a | 90.0 | 80.0 / 30.0 | 85.0 / 50.0 | 70.0 / 20.0 |" in text
    assert "| gate_mass | 1.00 | 1.00 | 100 % |" in text

    summary.restore(json.loads(json.dumps(results)), tmp_path / "here", rows.FULL, trials, [0, 1])
    assert collect(tmp_path / "here") == results
    assert (summary.known_seeds(results, [0]), summary.known_seeds({}, [2, 0])) == ([0, 1], [0, 2])  # none is lost
