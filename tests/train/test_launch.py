"""The real `deepspeed` launcher with two CPU ranks: Ctrl-C, SIGKILL while a checkpoint is written, and going on.

Each start costs the imports of two processes, so there are few and each checks much.
"""

import contextlib
import json
import os
import random
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from helpers import llava_runs, tiny_towers
from helpers.paths import ROOT
from helpers.training import metrics
from tove_lvlm.train import checkpoint, manifest

STEPS, SAVE = 16, 4


def options(world, zero: str, out: str) -> list[str]:
    return [
        f"train.deepspeed={ROOT}/projects/deepspeed/{zero}.json",
        f"train.output_dir={world}/{out}",
        f"train.max_steps={STEPS}",
        f"train.save_steps={SAVE}",
        "train.logging_steps=3",
        f"model.tower={world}/two/tower.yaml",
        f"train.bf16={'true' if zero == 'zero3' else 'false'}",
    ]


@pytest.fixture(scope="module")
def two_experts(tmp_path_factory):
    return tiny_towers.make_tower_yaml(tmp_path_factory.mktemp("two"), experts=["depth", "shapes"]).parent


def wait_for(condition, process, log, seconds: float = 900.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < end, "too slow:\n" + log.read_text()[-3000:]
        time.sleep(0.001)


def kill_all(process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=300)


@pytest.fixture
def start(world):
    """`start(...)` as llava_runs'; whatever still runs at the end of the test is killed."""
    started = []

    def begin(*args, **kwargs):
        started.append(llava_runs.start(world, *args, **kwargs))
        return started[-1]

    yield begin
    for process in started:
        kill_all(process)


@pytest.mark.parametrize("zero", ["zero2", pytest.param("zero3", marks=pytest.mark.full)])
def test_killed_while_writing_a_checkpoint_and_resumed_is_bit_identical(world, two_experts, start, zero):
    (world / "two").symlink_to(two_experts)
    code, output = llava_runs.run(world, "finetune", options(world, zero, "whole"), ranks=2)
    assert code == 0, output[-3000:]
    out = world / "parts"
    log = world / "log"
    if zero == "zero3":  # Ctrl-C in a terminal reaches the launcher and all ranks
        process = start("finetune", options(world, zero, "parts"), ranks=2, log=log)
        wait_for(lambda: (out / "metrics.jsonl").is_file(), process, log)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=300)
        wait_for_ranks_to_end(world)
        (kept,) = checkpoint.checkpoints(out)[-1:]
        reached = manifest.read_meta(kept)["step"]
        assert 0 < reached < STEPS
        assert not (out / "model.safetensors").exists()
    delay = random.Random().uniform(0, 0.06)
    process = start("finetune", options(world, zero, "parts"), ranks=2, log=log)
    before = {path.name for path in checkpoint.checkpoints(out)}
    target = max([int(name.split("-")[1]) for name in before], default=SAVE) // SAVE * SAVE + SAVE
    wait_for(lambda: (out / f".writing-checkpoint-{target}").exists(), process, log)
    time.sleep(delay)
    kill_all(process)
    wait_for_ranks_to_end(world)
    assert not (out / "model.safetensors").exists()
    found = checkpoint.checkpoints(out)
    assert found, f"killed {delay:.4f} s into writing checkpoint-{target}"
    assert all((path / manifest.MANIFEST).is_file() for path in out.glob("checkpoint-*"))
    code, output = llava_runs.run(world, "finetune", options(world, zero, "parts"), ranks=2)
    assert code == 0, output[-3000:]
    assert f"resuming from {found[-1]}" in output
    assert metrics(out) == metrics(world / "whole"), f"killed {delay:.4f} s into writing checkpoint-{target}"
    a, b = (load_file(folder / "model.safetensors") for folder in (out, world / "whole"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


def wait_for_ranks_to_end(world) -> None:
    """The launcher may be gone before its ranks are."""
    import psutil

    def ours(process) -> bool:
        try:
            return str(world) in " ".join(process.cmdline()) and process.pid != os.getpid()
        except psutil.Error:
            return False

    end = time.monotonic() + 300
    while any(ours(process) for process in psutil.process_iter()):
        assert time.monotonic() < end, "ranks are still running"
        time.sleep(0.05)


def test_bad_configuration_under_the_launcher_is_one_line_and_code_2(world, two_experts):
    (world / "two").symlink_to(two_experts)
    code, output = llava_runs.run(world, "pretrain", [*options(world, "zero2", "x"), "train.sede=1"], ranks=2)
    assert code == 2
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    assert errors
    assert all("train.sede" in line for line in errors)
    assert "Traceback" not in output


def test_broken_sample_ends_with_code_2_and_its_name(world, train, capfd):
    bad = json.loads((world / "data" / "pretrain.json").read_text())
    bad[5]["conversations"][0]["from"] = "robot"
    (world / "bad.json").write_text(json.dumps(bad))
    assert train("pretrain", f"data.train=[{world}/bad.json]") == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert "bad.json" in last
    assert "c5" in last
