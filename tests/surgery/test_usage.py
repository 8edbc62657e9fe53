"""Every figure of `tove usage` against a computation the plain way; several ranks, resuming, the command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from helpers.brute_force import encode_rows, questions_as_llava, stock_quality
from helpers.training import environment
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.config import UserError
from tove_lvlm.data.errors import DataError
from tove_lvlm.surgery.probe import Probe
from tove_lvlm.surgery.probe_data import read_probe_data
from tove_lvlm.surgery.signals import measure_signals
from tove_lvlm.surgery.usage import measure_usage
from tove_lvlm.surgery.usage_sums import State, Sums

COST = {"ms", "gflops", "parameters", "memory_bytes"}


def _figures(value, path: str = "") -> dict[str, object]:
    """All leaves of a report by their path, without times, which no two runs share."""
    if not isinstance(value, dict):
        return {path: value}
    leaves = [_figures(inner, f"{path}/{name}") for name, inner in value.items() if name != "ms"]
    return {name: leaf for part in leaves for name, leaf in part.items()}


def _assert_same(found: dict, expected: dict) -> None:
    """Equal up to float32's rounding: processes may differ in their number of threads."""
    found, expected = _figures(found), _figures(expected)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        close = pytest.approx(value, abs=1e-6) if isinstance(value, float) else value
        assert found[path] == close, path


@pytest.fixture(scope="module")
def report(trained, world) -> dict:
    """Of one uninterrupted run on one rank."""
    data = read_probe_data(data=world / "questions.jsonl")
    return measure_usage(open_checkpoint(trained), data, batch_size=3)


def test_gate_figures_equal_brute_force(report, trained, world):
    loaded = open_checkpoint(trained)
    tower = loaded.tower
    samples = questions_as_llava(world / "questions.jsonl")[::3]  # one question of each of the ten images
    pixels = encode_rows(loaded, samples, world / "images")["pixel_values"]
    hidden = {}
    for name, transfer in tower.tove_fusion.transfers.items():
        transfer.register_forward_hook(lambda module, args, output, name=name: hidden.update({name: output}))
    with torch.no_grad():
        out = tower(pixels)
    (t_clip, t_fuse), gate = out.hidden_states, out.gate_probs
    unit = tower.config.fusion_settings.transfer_scale * t_clip.pow(2).mean(-1, keepdim=True).sqrt()
    with torch.no_grad():
        e = {name: tower.tove_fusion.shared_out(hidden[name]) for name in tower.expert_names}
    terms = {name: gate[..., k : k + 1] * unit * e[name] for k, name in enumerate(tower.expert_names)}
    torch.testing.assert_close(t_clip + sum(terms.values()), t_fuse)
    assert report["num_images"] == len(pixels) == 10
    for k, name in enumerate(tower.expert_names):
        row = report["experts"][name]
        assert row["gate_mass"] == pytest.approx(float(gate[..., k].mean()), abs=1e-6)
        first = [token.argmax().item() == k for token in gate.flatten(0, 1)]
        assert row["first_share"] == pytest.approx(sum(first) / len(first), abs=1e-9)
        ratio = terms[name].pow(2).sum(-1).sqrt() / t_clip.pow(2).sum(-1).sqrt()
        assert row["relative_norm"] == pytest.approx(float(ratio.mean()), rel=1e-5)
        assert not row["detached"]
    assert sum(row["gate_mass"] for row in report["experts"].values()) == pytest.approx(1)
    assert sum(row["first_share"] for row in report["experts"].values()) == pytest.approx(1)
    assert len({round(row["gate_mass"], 4) for row in report["experts"].values()}) == 4


def test_leave_one_out_equals_detaching_and_the_stock_forward(report, trained, world):
    loaded = open_checkpoint(trained)
    samples = questions_as_llava(world / "questions.jsonl")
    loss, score = stock_quality(loaded, samples, world / "images")
    assert report["quality"] == {"loss": pytest.approx(loss, abs=1e-5), "score": pytest.approx(score)}
    for name, row in report["experts"].items():
        loaded.tower.detach(name)
        loss_without, score_without = stock_quality(loaded, samples, world / "images")
        loaded.tower.attach(name)
        assert row["loss_change"] == pytest.approx(loss_without - loss, abs=2e-5)
        assert row["score_change"] == pytest.approx(score_without - score, abs=1e-9)
        assert row["loss_change"] != 0
    loaded.tower.detach(*loaded.tower.expert_names)
    loss, score = stock_quality(loaded, samples, world / "images")
    assert report["quality_clip"] == {"loss": pytest.approx(loss, abs=1e-5), "score": pytest.approx(score)}
    assert report["num_answers"] == 30


def test_cost_is_in_the_report(report, trained):
    tower = open_checkpoint(trained).tower
    assert set(report["tower"]) == COST
    assert report["tower"]["parameters"] == sum(p.numel() for p in tower.parameters())
    for name, row in report["experts"].items():
        assert row["parameters"] == sum(p.numel() for p in tower.experts[name].parameters()) > 0
        assert row["ms"] > 0


def test_detached_experts_are_listed_with_zeros(trained, world):
    loaded = open_checkpoint(trained)
    loaded.tower.detach("depth", "cnn", "shapes")
    found = measure_usage(loaded, read_probe_data(data=world / "questions.jsonl", limit=6), batch_size=2)
    gone, kept = found["experts"]["cnn"], found["experts"]["normals"]
    assert gone["detached"]
    assert {gone[key] for key in ("gate_mass", "first_share", "relative_norm", "loss_change", *COST)} == {0}
    assert (kept["gate_mass"], kept["first_share"]) == (1, 1)
    # One expert alone: without it there is CLIP.
    assert kept["loss_change"] == found["quality_clip"]["loss"] - found["quality"]["loss"]


def test_an_estimate_is_the_first_order_signal_and_takes_no_pass_without_each(report, trained, world, monkeypatch):
    asked = []

    def score_sets(probe, batch, sets, scored=Probe.score_sets):
        asked.append(len(sets))
        return scored(probe, batch, sets)

    monkeypatch.setattr(Probe, "score_sets", score_sets)
    data = read_probe_data(data=world / "questions.jsonl")
    found = measure_usage(open_checkpoint(trained), data, batch_size=3, estimate=True)
    assert set(asked) == {2}, "with all experts, and with none"
    assert found["quality"] == report["quality"]
    assert found["quality_clip"] == report["quality_clip"]
    signals = measure_signals(Probe(open_checkpoint(trained), data, batch_size=3))
    for name, row in found["experts"].items():
        assert row["loss_estimate"] == pytest.approx(signals[name].first_order, rel=1e-5)
        assert row["answer_norm"] == pytest.approx(signals[name].answer_norm, rel=1e-5)
        assert (row["loss_change"], row["score_change"]) == (None, None)
        assert row["gate_mass"] == report["experts"][name]["gate_mass"]
        assert report["experts"][name]["loss_estimate"] is None
    for ranked, by in ((found, "answer_norm"), (report, "loss_change")):
        assert ranked["ranked_by"] == by
        values = [ranked["experts"][name][by] for name in ranked["least_useful_first"]]
        assert values == sorted(values)
        assert set(ranked["least_useful_first"]) == set(found["experts"])


def test_an_estimate_needs_answers(checkpoints, world):
    with pytest.raises(UserError, match="an estimate is of the loss of answers"):
        measure_usage(open_checkpoint(checkpoints["merged"]), read_probe_data(images=world / "images"), estimate=True)


def test_images_alone_or_a_tower_alone_have_no_quality(checkpoints, world):
    pictures = read_probe_data(images=world / "images")
    of_tower = measure_usage(open_checkpoint(checkpoints["tower"]), pictures)
    of_model = measure_usage(open_checkpoint(checkpoints["merged"]), pictures)
    for found in (of_tower, of_model):
        assert found["quality"] is None
        assert found["num_images"] == 24
        assert found["experts"]["depth"]["loss_change"] is None
    assert of_tower["experts"]["depth"]["gate_mass"] == of_model["experts"]["depth"]["gate_mass"] > 0


def test_a_killed_run_goes_on_to_the_same_figures(report, trained, world, tmp_path):
    state = tmp_path / "usage.partial.json"
    script = f"""
import os, signal
from pathlib import Path
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.surgery.probe_data import read_probe_data
from tove_lvlm.surgery.usage import measure_usage

def progress(done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

data = read_probe_data(data=Path({str(world / "questions.jsonl")!r}))
measure_usage(open_checkpoint({str(trained)!r}), data, batch_size=3, state_file=Path({str(state)!r}), save_every=1,
              progress=progress)
"""
    killed = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    assert json.loads(state.read_text())["done"] == 2
    told = []
    data = read_probe_data(data=world / "questions.jsonl")
    found = measure_usage(
        open_checkpoint(trained), data, batch_size=3, state_file=state, progress=lambda done, total: told.append(done)
    )
    assert told == [2, 3, 4]  # the first two of four batches were not run again
    _assert_same(found, report)


def test_a_state_of_something_else_is_not_mixed_in(trained, checkpoints, world, tmp_path, caplog):
    state = tmp_path / "usage.partial.json"

    def run(checkpoint, batch_size=3, **data) -> int:
        """Where the run began."""
        told = []
        read = read_probe_data(data=world / "questions.jsonl", **data)
        kept = state.read_text() if state.exists() else None
        measure_usage(
            open_checkpoint(checkpoint),
            read,
            batch_size=batch_size,
            state_file=state,
            progress=lambda *a: told.append(a[0]),
        )
        if kept is not None:
            state.write_text(kept)
        return told[0]

    assert run(trained) == 0
    assert run(trained) == 4  # finished: nothing to run again
    assert run(checkpoints["merged"]) == 0
    assert run(trained, limit=29) == 0
    assert run(trained, batch_size=4) == 0
    assert "another checkpoint" in caplog.text
    image = world / "images" / "0.png"
    stat = image.stat()
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert run(trained) == 0
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run(trained) == 4
    state.write_text("{")
    assert run(trained) == 0


def test_state_returns_bit_for_bit(tmp_path):
    sums = Sums.zeros(3, 2)
    sums["norm"] += torch.rand(3, dtype=torch.float64) / 3
    State(identity="a", sums=sums, done=7, broken={"image x": "gone"}).save(tmp_path / "s")
    fresh = State(identity="a", sums=Sums.zeros(3, 2))
    assert fresh.load(tmp_path / "s")
    assert (fresh.done, fresh.broken) == (7, {"image x": "gone"})
    assert torch.equal(fresh.sums["norm"], sums["norm"])
    assert not State(identity="a", sums=Sums.zeros(3, 1)).load(tmp_path / "s")
    assert not State(identity="b", sums=Sums.zeros(3, 2)).load(tmp_path / "s")


@pytest.mark.full
def test_two_ranks_give_the_figures_of_one_and_only_json(report, trained, world, tmp_path):
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "tove_lvlm.cli", "usage", str(trained), "--data", str(world / "questions.jsonl")),
        *("--batch-size", "3", "--output", str(tmp_path / "out"), "--json"),
    ]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)  # once, from rank 0, and nothing else
    assert found == json.loads((tmp_path / "out" / "usage.json").read_text())
    assert not (tmp_path / "out" / "usage.partial.json").exists()
    _assert_same(found, report)


def _tove(*arguments):
    from tove_lvlm.cli import app

    return CliRunner().invoke(app, ["usage", *map(str, arguments)])


def test_the_table_and_the_plot(checkpoints, world, tmp_path):
    (world / "images" / "broken.png").write_bytes(b"no image")
    try:
        result = _tove(checkpoints["merged"], "--images", world / "images", "--output", tmp_path / "out")
    finally:
        (world / "images" / "broken.png").unlink()
    assert result.exit_code == 0, result.output
    for words in (
        "depth",
        "normals",
        "shapes",
        "cnn",
        "tower",
        "24 images",
        "they are broken: 1.",
        "broken.png: image",
    ):
        assert words in result.stdout
    assert json.loads((tmp_path / "out" / "usage.json").read_text())["broken"].keys() == {"image broken.png"}
    assert (tmp_path / "out" / "usage.svg").stat().st_size > 1000
    assert (tmp_path / "out" / "usage.png").stat().st_size > 1000


def test_the_table_says_what_is_an_estimate(checkpoints, world, tmp_path):
    data = world / "questions.jsonl"
    result = _tove(checkpoints["merged"], "--data", data, "--estimate", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "(estimate)" in " ".join(result.stdout.split())
    assert "Least useful first, by their norm at the answers' tokens: " in result.stdout
    assert "loss without" not in result.stdout


def test_what_the_user_gave_wrong(checkpoints, clip_only, world, tmp_path):
    data = world / "questions.jsonl"
    cases = [
        ([clip_only, "--data", data], "plain CLIP and no ToVE tower"),
        ([checkpoints["tower"]], "either a data file or a folder of images"),
        ([checkpoints["tower"], "--data", data, "--images", world], "either a data file or a folder"),
        ([checkpoints["tower"], "--data", tmp_path / "none.json"], "none.json` does not exist"),
        ([checkpoints["tower"], "--images", tmp_path / "none"], "none` does not exist"),
        ([checkpoints["tower"], "--images", tmp_path], "holds no images"),
        ([checkpoints["tower"], "--data", data, "--image-folder", tmp_path / "no"], "no` does not exist"),
        ([checkpoints["tower"], "--images", world / "images", "--device", "cuda:99"], "no such device"),
        ([tmp_path / "nothing", "--data", data], "does not exist"),
    ]
    for arguments, words in cases:
        result = _tove(*arguments, "--output", tmp_path / "out")
        assert isinstance(result.exception, UserError), (arguments, result.exception)
        assert words in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_too_many_broken_images_stop_the_run(checkpoints, world, tmp_path: Path):
    for index in range(7):
        (tmp_path / f"{index}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="over the 5 allowed"):
        measure_usage(open_checkpoint(checkpoints["tower"]), read_probe_data(images=tmp_path))
    with pytest.raises(DataError, match="not one image can be read"):
        measure_usage(open_checkpoint(checkpoints["tower"]), read_probe_data(images=tmp_path, limit=2))
