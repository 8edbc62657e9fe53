"""The benchmark on real networks: rows, table, and with the networks at hand two steps of some rows."""

import json
import re
import subprocess
import sys

import pytest
import real_small_study
import yaml
from PIL import Image
from study import real_small as study
from study.intervals import wilson

from helpers.paths import ROOT
from tove_lvlm.eval.io.items import Item

SOURCE = ROOT / "outputs" / "real_small" / "source"
NEEDED = ("networks/smollm2", "networks/efficientnet_lite2", "networks/dinov2_s14", "networks/hed", "files/u2net.onnx")


def items(family: str, answers: str) -> list[Item]:
    return [
        Item(question_id=f"{family}{k}", image=f"{family}{k}.png", text="?", group=family)
        for k, _ in enumerate(answers)
    ]


def test_shuffled_pictures_stay_in_their_family():
    asked = [*items("a", "xxxxxxxx"), *items("b", "yyyyyyyy")]
    changed = study.shuffled(asked)
    assert {item.question_id for item in changed} == {item.question_id for item in asked}
    assert sorted(item.image for item in changed) == sorted(item.image for item in asked)
    assert all(item.image.startswith(item.group) for item in changed)
    assert sum(f"{item.question_id}.png" != item.image for item in changed) > 8
    assert changed == study.shuffled(asked)


def test_wilsons_interval():
    low, high = wilson(0.5, 100)  # known: 0.404 to 0.596
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert wilson(0.0, 10)[0] == pytest.approx(0.0, abs=1e-9)
    assert wilson(1.0, 10)[1] == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("row", study.ROWS, ids=lambda row: row.id)
def test_a_row_changes_the_experts_and_the_fusion_alone(row, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "matched_hidden", lambda tower, expert: 77)
    written = yaml.safe_load(study.write_tower(row, tmp_path).read_text())
    project = yaml.safe_load((study.PROJECT / row.tower).read_text())
    assert written["base"] == project["base"]
    assert [entry["name"] for entry in written["experts"]] == list(row.experts)
    changed = {key: value for key, value in written["fusion"].items() if project["fusion"].get(key) != value}
    assert changed == {key: 77 if value == "matched" else value for key, value in row.fusion.items()}


@pytest.mark.parametrize(("tower", "experts"), [(study.TOWER, study.EXPERTS), (study.DINOV2_TOWER, ("imagenet",))])
def test_the_rows_names_are_the_projects_experts(tower, experts):
    project = yaml.safe_load((study.PROJECT / tower).read_text())
    assert tuple(entry["name"] for entry in project["experts"]) == experts


def test_a_rows_rate_reaches_both_stages(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(study, "run_script", lambda stage, options, project: ran.append((stage, options)))
    (row,) = [row for row in study.ROWS if row.train]
    for stage, folder in (("pretrain", "pretrain"), ("finetune", "model")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "metrics.jsonl").write_text('{"loss": 2.0, "step": 1}\n')
        assert study.train(row, stage, 0, tmp_path, tmp_path, 1) == {"first_loss": 2.0, "last_loss": 2.0, "steps": 1}
    assert [stage for stage, _ in ran] == ["pretrain", "finetune"]
    assert all("train.fusion_lr=0.0002" in options for _, options in ran)


def test_the_last_loss_is_a_mean_over_the_last_logged(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "run_script", lambda stage, options, project: None)
    for stage, folder, losses in (
        ("pretrain", "pretrain", [9.0, 1.0, *[2.0] * 8, 4.0]),
        ("finetune", "model", [0.5]),
    ):
        (tmp_path / folder).mkdir()
        lines = [json.dumps({"loss": loss, "step": 5 * step}) for step, loss in enumerate(losses, 1)]
        (tmp_path / folder / "metrics.jsonl").write_text("\n".join(lines))
        trained = study.train(study.ROWS[0], stage, 0, tmp_path, tmp_path, None)
        assert trained == {
            "first_loss": losses[0],
            "last_loss": 2.1 if len(losses) > 1 else 0.5,
            "steps": 5 * len(losses),
        }


def test_the_table():
    def scored(value: float) -> dict:
        families = {"naming": {"accuracy": value, "n": 4}}
        return {"overall": {"accuracy": value, "n": 4}, "families": families}

    run = {"likelihood": scored(0.75), "words": scored(0.5), "shuffled": scored(0.25), "chance": scored(0.125)}
    text = real_small_study.table({"base": {"0": run, "1": run}, "tove": {}}, {"base": "base alone"})
    assert "| text alone | | 12.5 | 12.5 |" in text
    assert "| base alone | 2 | 75.0 (50.0; 25.0) | 75.0 (50.0; 25.0) |" in text
    assert "tove" not in text
    assert real_small_study.table({}, {}) == "nothing yet\n"


@pytest.mark.full
def test_two_steps_of_two_rows_and_what_is_made_of_them(tmp_path):
    if missing := [name for name in NEEDED if not (SOURCE / name).exists()]:
        pytest.skip(f"{missing[0]} was not fetched: python scripts/fetch_real_small.py --only networks")
    write_data(tmp_path / "data")
    command = [sys.executable, ROOT / "benchmarks" / "real_small_study.py", "--seeds", "0", "--steps", "2"]
    command += ["--root", tmp_path, "--only", "base", "detached", "merged", "tove"]
    build_cache(tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "try" / "real_small.json").read_text())
    for row in study.ROWS[:2]:
        found = results[row.id]["0"]
        assert found["likelihood"]["families"]["naming"]["n"] == 3
        assert set(found["gate_mass"]) == set(row.experts)
        assert set(found["losses"]) == {"pretrain", "finetune"}
        trained = json.loads((tmp_path / "try" / row.id / "seed0" / "finetune.json").read_text())
        assert (trained["steps"], trained["last_loss"] < 20) == (2, True)
        for stage in ("pretrain", "finetune", "score"):
            said = (tmp_path / "try" / row.id / "seed0" / f"{stage}.log").read_text()
            from_cache = re.search(r"(\d+) of (\d+) features were read", said)
            assert from_cache, said[-2000:]
            assert from_cache[1] == from_cache[2], "all had been computed before"
    assert len(results["detached"]["0"]["detached"]) == 2
    assert set(results["merged"]["0"]["gate_mass"]) == set()
    merging = json.loads((tmp_path / "try" / "merged" / "seed0" / "merge.json").read_text())
    assert merging["first_gap"] == pytest.approx(1, abs=1e-3)
    assert results["tove"]["0"]["trained"] > results["base"]["0"]["trained"] > 500_000
    assert "| base alone | 1 |" in done.stdout


def build_cache(root):
    """As `make real` does: the held-out pictures are resized as questions are asked."""
    data = [f"{root}/data/train/{stage}.json" for stage in ("pretrain", "finetune")]
    for options in (
        [f"data.train=[{','.join(data)}]", f"data.image_folder={root}/data/train/images"],
        [f"data.train=[{data[0]}]", f"data.image_folder={root}/data/heldout/images", "data.direct_resize=false"],
    ):
        command = ["cache", "build", "--cfg-path", study.PROJECT / "pretrain.yaml", "--options", *options]
        command += [f"train.expert_cache={root / 'expert_cache'}"]
        subprocess.run([sys.executable, "-m", "tove_lvlm.cli", *command], check=True, cwd=ROOT, capture_output=True)


def write_data(folder):
    """Three of scikit-image's photographs, to learn and to be asked about."""
    from skimage import data

    names = {"chelsea": "cat", "astronaut": "person", "coffee": "glass"}
    for split in ("train", "heldout"):
        (folder / split / "images").mkdir(parents=True)
        for name in names:
            Image.fromarray(getattr(data, name)()).resize((160, 120)).save(folder / split / "images" / f"{name}.png")
    rows = [
        {
            "id": f"{name}{k}",
            "image": f"{name}.png",
            "conversations": [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": answer}],
        }
        for k in range(6)
        for name, answer in names.items()
    ]
    for stage in ("pretrain", "finetune"):
        (folder / "train" / f"{stage}.json").write_text(json.dumps(rows))
    questions = [
        {
            "question_id": name,
            "image": f"{name}.png",
            "text": "What is this?",
            "answer": answer,
            "family": "naming",
            "choices": list(names.values()),
        }
        for name, answer in names.items()
    ]
    (folder / "heldout" / "questions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in questions))
