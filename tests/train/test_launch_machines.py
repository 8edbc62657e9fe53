"""Two machines: two `torchrun` agents that meet at one address, one killed, and both started again."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from helpers.paths import ROOT
from helpers.training import environment, free_port, metrics, same, weights
from tove_lvlm.train import checkpoint

STEPS, SAVE = 8, 2


def start_machines(world, out: str, address: str, log) -> list[subprocess.Popen]:
    """What is typed on each of two machines that share a file system."""
    options = [
        f"train.deepspeed={ROOT}/projects/deepspeed/zero2.json",
        f"train.output_dir={world}/{out}",
        f"train.max_steps={STEPS}",
        f"train.save_steps={SAVE}",
    ]
    script = [str(ROOT / "scripts" / "pretrain_projector.py"), "--cfg-path", "pretrain.yaml", "--options", *options]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", address, "--max-restarts", "0", *script]
    return [
        subprocess.Popen(
            command, cwd=world, env=environment(), stdout=log.open("ab"), stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        for _ in range(2)
    ]  # fmt: skip


def lose(machine: subprocess.Popen) -> None:
    """All processes of a machine at once; torchrun's ranks are sessions of their own."""
    agent = psutil.Process(machine.pid)
    for process in (*agent.children(recursive=True), agent):
        process.kill()


def end(machines: list[subprocess.Popen], seconds: float = 600) -> list[int]:
    try:
        return [machine.wait(timeout=seconds) for machine in machines]
    finally:
        for machine in machines:
            if machine.poll() is None:
                os.killpg(machine.pid, signal.SIGKILL)


@pytest.mark.full
def test_one_of_two_machines_is_killed_and_both_go_on(world):
    log = world / "log"
    assert end(start_machines(world, "whole", f"127.0.0.1:{free_port()}", log)) == [0, 0], log.read_text()[-3000:]
    machines = start_machines(world, "parts", f"127.0.0.1:{free_port()}", log)
    limit = time.monotonic() + 300
    while not checkpoint.checkpoints(world / "parts"):
        assert time.monotonic() < limit, log.read_text()[-3000:]
        time.sleep(0.01)
    lose(machines[0])
    assert all(code != 0 for code in end(machines)), "the other one does not go on alone"
    assert not (world / "parts" / "projector.safetensors").exists()
    assert end(start_machines(world, "parts", f"127.0.0.1:{free_port()}", log)) == [0, 0], log.read_text()[-3000:]
    assert "resuming from" in log.read_text()
    assert metrics(world / "parts") == metrics(world / "whole")
    assert same(weights(world / "parts"), weights(world / "whole"))
    assert all(torch.isfinite(tensor).all() for tensor in weights(world / "parts").values())
