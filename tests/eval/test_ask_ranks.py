"""Two real ranks with gloo, one of them killed: no answer is lost, and the same command ends the run."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from helpers.paths import ROOT
from helpers.training import environment


@pytest.mark.full
def test_a_killed_rank_loses_no_answers(tove, checkpoint, benchmarks, tmp_path):
    asked = ["pope", "--model", checkpoint, "--data", benchmarks, "--max-new-tokens", "4", "--device", "cpu"]
    out = tmp_path / "out"
    command = [sys.executable, "-m", "helpers.two_ranks", tmp_path, "eval", *asked]
    command = [*map(str, command), "--batch-size", "1", "--output", str(out)]
    started = environment() | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    log = tmp_path / "log"
    with log.open("wb") as stream:
        agent = subprocess.Popen(command, env=started, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            shard = out / "shards" / "00001.jsonl"
            while not (shard.is_file() and shard.stat().st_size):
                assert agent.poll() is None, log.read_text()
                time.sleep(0.01)
            os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGKILL)
            assert agent.wait(timeout=1200) != 0
        finally:
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGKILL)
    done = subprocess.run(command, env=started, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "record.json").read_text())
    assert record["world_size"] == 2
    assert 1 <= record["num_resumed"] < record["num_items"]
    assert record["problems"] == {}
    code, printed, _ = tove("eval", *asked, "--output", tmp_path / "alone", "--json")
    assert code == 0
    assert (out / "answers.jsonl").read_bytes() == (tmp_path / "alone" / "answers.jsonl").read_bytes()
    assert json.loads(printed)["metrics"] == record["metrics"]
    assert list((out / "shards").iterdir()) == []
