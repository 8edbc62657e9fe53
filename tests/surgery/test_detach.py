"""`tove detach` and `tove attach` from end to end, and their report."""

import json
import math
import re

import pytest
import torch

from helpers import tiny_towers
from helpers.tiny_towers import hashes
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.config import UserError
from tove_lvlm.surgery import detach as operation
from tove_lvlm.surgery.choose import BUDGET_MS, KEEP, MAX_DROP, MIN_GAIN, Rule
from tove_lvlm.surgery.compare import alternate, share_equal, tower_ms
from tove_lvlm.surgery.detach import detach
from tove_lvlm.surgery.mean_terms import measure_mean_terms
from tove_lvlm.surgery.probe import Probe
from tove_lvlm.surgery.probe_data import read_probe_data


@pytest.fixture(scope="module")
def data(world):
    return read_probe_data(data=world / "questions.jsonl", image_folder=world / "images", limit=12)


@pytest.mark.parametrize("renormalise", [False, True])
def test_keep_chooses_as_brute_force_would_and_reports_what_is_there(trained, data, tmp_path, renormalise):
    before = hashes(trained)
    rule = Rule(name=KEEP, limit=2)
    options = {"data": data, "device": "cpu", "seconds": 0.1, "renormalise": renormalise}
    report = detach(trained, tmp_path / "out", rule=rule, **options)
    loaded = open_checkpoint(trained)
    probe = Probe(loaded, data)
    if not renormalise:
        probe = Probe(loaded, data, mean_terms=measure_mean_terms(probe))
    now = list(tiny_towers.EXPERT_NAMES)
    for removed, step in zip(report["removed"], report["history"], strict=False):
        sets = [[name for name in now if name != gone] for gone in now]
        losses = [quality.loss for quality in probe.quality(sets)]
        assert [row["loss"] for row in step["candidates"]] == pytest.approx(losses, abs=1e-6)
        assert removed == now[losses.index(min(losses))]
        now.remove(removed)
    assert len(report["removed"]) == 2
    assert report["attached"] == now
    saved = open_checkpoint(tmp_path / "out")
    assert saved.tower.attached_names == now
    in_order = [name for name in tiny_towers.EXPERT_NAMES if name in report["removed"]]
    assert report["mean_terms"] == saved.tower.config.mean_terms == ([] if renormalise else in_order)
    whole, left = probe.quality([tiny_towers.EXPERT_NAMES, now])
    for side, quality in (("before", whole), ("after", left)):
        assert report[side]["loss"] == pytest.approx(quality.loss, abs=1e-6)
        assert report[side]["score"] == quality.score
        assert report[side]["num_answers"] == 12
    for side, model in (("before", loaded.model), ("after", saved.model)):
        assert report[side]["memory_bytes"] == sum(t.nbytes for t in [*model.parameters(), *model.buffers()])
        assert report[side]["tower_ms"] > 0 < report[side]["prefill_ms"]
    away = sum(t.nbytes for name in report["removed"] for t in loaded.tower.experts[name].state_dict().values())
    assert report["before"]["file_bytes"] - report["after"]["file_bytes"] > away
    assert report["change"]["loss"] == pytest.approx(left.loss / whole.loss - 1, abs=1e-4)
    assert report["change"]["score"] == pytest.approx(left.score - whole.score)
    assert json.loads((tmp_path / "out" / "detach.json").read_text()) == report
    assert hashes(trained) == before


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("kind", ["tower", "stage1", "adapter", "merged"])
def test_every_kind_by_name(checkpoints, data, tmp_path, kind, renormalise):
    options = {"data": data, "device": "cpu", "seconds": 0, "renormalise": renormalise}
    report = detach(checkpoints[kind], tmp_path / "out", ["cnn", "depth"], **options)
    expected = open_checkpoint(checkpoints[kind])
    means = {} if renormalise else measure_mean_terms(Probe(expected, data))
    expected.tower.detach("cnn", "depth", mean_terms={name: means[name] for name in means if name in ("cnn", "depth")})
    saved = open_checkpoint(tmp_path / "out")
    assert report["kind"] == saved.kind == kind
    pixels = tiny_towers.pixels()
    assert torch.equal(saved.tower(pixels).last_hidden_state, expected.tower(pixels).last_hidden_state)
    if kind == "tower":
        assert report["before"]["loss"] is None
        assert "prefill_ms" not in report["after"]
    else:
        (quality,) = Probe(expected, data).quality([["normals", "shapes"]])
        assert report["after"]["loss"] == quality.loss
        assert report["before"]["loss"] != quality.loss
    assert any("holds none" in note for note in report["notes"]) == (kind in ("adapter", "stage1"))


def test_a_budget_is_kept_by_the_towers_own_time(trained, data, tmp_path, monkeypatch):
    ms = {"depth": 4.0, "normals": 4.0, "shapes": 1.0, "cnn": 2.0}
    monkeypatch.setattr(operation, "tower_ms", lambda tower, names: 3.0 + sum(ms[name] for name in names))
    rule = Rule(name=BUDGET_MS, limit=9.0)
    report = detach(trained, tmp_path / "out", rule=rule, data=data, device="cpu", seconds=0)
    assert 3.0 + sum(ms[name] for name in report["attached"]) <= 9.0
    assert [step["tower_ms"] for step in report["history"]][0] == 14.0
    with pytest.raises(UserError, match="CLIP alone costs 3 ms"):
        detach(trained, tmp_path / "no", rule=Rule(name=BUDGET_MS, limit=2.0), data=data, device="cpu", seconds=0)
    assert not (tmp_path / "no").exists()


def test_all_may_go_and_the_report_says_it_is_clip(trained, data, tmp_path):
    rule = Rule(name=MIN_GAIN, limit=100.0)
    report = detach(trained, tmp_path / "out", rule=rule, data=data, device="cpu", seconds=0)
    assert sorted(report["removed"]) == sorted(tiny_towers.EXPERT_NAMES)
    assert report["attached"] == []
    assert "the tower is CLIP, bit for bit" in report["notes"][0]
    tower = open_checkpoint(tmp_path / "out").tower
    assert torch.equal(tower(tiny_towers.pixels()).last_hidden_state, tower.clip_tokens(tiny_towers.pixels()))
    with pytest.raises(UserError, match="no expert attached .* nothing to detach"):
        detach(tmp_path / "out", tmp_path / "again", ["cnn"], device="cpu", seconds=0)


def test_nothing_to_remove_names_the_least_useful(trained, data, tmp_path):
    with pytest.raises(
        UserError, match=r"nothing to remove by --min-gain -100: without `\w+`, the least useful, the loss"
    ):
        detach(trained, tmp_path / "out", rule=Rule(name=MIN_GAIN, limit=-100.0), data=data, device="cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "where", ["surgery.detach._measure", "surgery.detach.share_equal", "checkpoints.write_experts.arrange"]
)
def test_a_failure_anywhere_leaves_nothing(checkpoints, tmp_path, monkeypatch, where):
    def fail(*args, **kwargs):
        raise RuntimeError("power cut")

    before = hashes(checkpoints["merged"])
    monkeypatch.setattr(f"tove_lvlm.{where}", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        detach(checkpoints["merged"], tmp_path / "out", ["cnn"], device="cpu", seconds=0)
    assert list(tmp_path.iterdir()) == []
    assert hashes(checkpoints["merged"]) == before


def test_command_line_there_and_back(tove, trained, world, tmp_path):
    measured = ["--data", world / "questions.jsonl", "--image-folder", world / "images", "--limit", 6]
    code, out, _ = tove("detach", trained, "--output", tmp_path / "out", "--max-drop", 100, *measured, "--json")
    assert code == 0
    report = json.loads(out)
    assert report["by"] == {MAX_DROP: 100.0}
    assert len(report["removed"]) == 4
    code, out, _ = tove("attach", tmp_path / "out", "--from", trained, "--output", tmp_path / "back", "--json")
    assert code == 0
    assert json.loads(out)["attached"] == tiny_towers.EXPERT_NAMES
    assert hashes(tmp_path / "back") == hashes(trained)


def test_command_line_prints_tables(tove, checkpoints, tmp_path):
    code, out, _ = tove("detach", checkpoints["tower"], "--output", tmp_path / "out", "--experts", "cnn, shapes")
    assert code == 0
    assert "tower, ms per image" in out
    assert "detached: cnn, shapes; attached: depth, normals" in out
    code, out, _ = tove("attach", tmp_path / "out", "--from", checkpoints["tower"], "--output", tmp_path / "b")
    assert code == 0
    assert "attached again: shapes, cnn" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give exactly one of --experts, --keep.*got none"),
        (["--keep", "1", "--experts", "cnn"], "exactly one of .*got --experts, --keep"),
        (["--keep", "1"], "--keep needs --data FILE"),
        (["--experts", ","], "--experts is `,`"),
        (["--experts", "cn"], "no expert `cn`; did you mean `cnn`"),
        (["--experts", "cnn", "--limit", "3"], "belong to --data"),
    ],
)
def test_command_line_errors_are_one_line(tove, checkpoints, tmp_path, options, message):
    code, _, err = tove("detach", checkpoints["tower"], "--output", tmp_path / "out", *options)
    assert code == 2
    assert re.search(message, err), err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_detached(clip_only, checkpoints, data, tmp_path):
    with pytest.raises(UserError, match="plain CLIP"):
        detach(clip_only, tmp_path / "out", ["cnn"])
    with pytest.raises(UserError, match="no answers to judge by"):
        detach(checkpoints["tower"], tmp_path / "out", rule=Rule(name=KEEP, limit=1), data=data, device="cpu")
    detach(checkpoints["tower"], tmp_path / "some", ["cnn"], device="cpu", seconds=0)
    with pytest.raises(UserError, match="`cnn` is detached already; attached: depth, normals, shapes"):
        detach(tmp_path / "some", tmp_path / "out", ["cnn"], device="cpu")
    assert not (tmp_path / "out").exists()


def test_timing_a_set_leaves_the_tower_as_it_was(checkpoints):
    tower = open_checkpoint(checkpoints["tower"]).tower
    calls = []
    for name, expert in tower.experts.items():
        expert.register_forward_pre_hook(lambda module, args, name=name: calls.append(name))
    before = tower(tiny_towers.pixels()).last_hidden_state
    calls.clear()
    assert tower_ms(tower, ["shapes"]) > 0
    assert set(calls) == {"shapes"}
    assert tower.attached_names == tiny_towers.EXPERT_NAMES
    assert torch.equal(tower(tiny_towers.pixels()).last_hidden_state, before)


def test_sides_take_turns():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    found = alternate(calls, torch.device("cpu"), seconds=0)
    assert order[:10] == list("ababbaabba")
    assert len(order) == 2 * (1 + 7)
    assert all(math.isfinite(ms) and ms >= 0 for ms in found.values())


def test_weights_are_shared_only_when_they_are_equal(checkpoints):
    one, other = (open_checkpoint(checkpoints["merged"]).model for _ in range(2))
    share_equal(one, other)
    assert other.lm_head.weight.data_ptr() == one.lm_head.weight.data_ptr()
    broken = open_checkpoint(checkpoints["merged"]).model
    with torch.no_grad():
        broken.lm_head.weight[0, 0] += 1
    with pytest.raises(RuntimeError, match="differs in `lm_head.weight`"):
        share_equal(one, broken)


def test_in_process_inside_llava_and_inside_peft(checkpoints):
    """The documented way: `find_tower(model).detach(...)`, whatever is around the tower."""
    import peft

    from tove_lvlm.tower.recorder import find_tower

    model = open_checkpoint(checkpoints["merged"]).model
    expected = open_checkpoint(checkpoints["tower"]).tower
    expected.detach("cnn")
    wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=r".*language_model.*q_proj"))
    find_tower(wrapped).detach("cnn")
    assert find_tower(wrapped) is find_tower(model)
    assert model.config.vision_config.detached == ["cnn"]
    features = wrapped.get_base_model().model.vision_tower(tiny_towers.pixels()).last_hidden_state
    assert torch.equal(features, expected(tiny_towers.pixels()).last_hidden_state)
