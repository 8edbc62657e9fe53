"""The SLURM file of docs/several_machines.md: its time is up, and it goes on. `srun` and `scontrol` are stand-ins."""

import re
import signal
import stat
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from helpers.paths import ROOT
from helpers.training import environment, free_port, metrics, same, weights
from tove_lvlm.train import checkpoint

STEPS = 8
SRUN = """#!/bin/bash
# Two machines: the command twice. SLURM signals every process of a job step.
trap 'kill -TERM $first $second 2>/dev/null' TERM
"$@" & first=$!
"$@" & second=$!
for machine in $first $second; do
    until wait $machine; code=$?; ! kill -0 $machine 2>/dev/null; do :; done
done
exit $code
"""
SCONTROL = "#!/bin/bash\necho 127.0.0.1\n"


def batch_file(world: Path, out: str, port: int) -> Path:
    """The document's file with small numbers in place of its own."""
    text = (ROOT / "docs" / "several_machines.md").read_text()
    (block,) = re.findall(r"```sh\n(#!/bin/bash\n#SBATCH.*?)```", text, re.DOTALL)
    options = [
        f"train.deepspeed={ROOT}/projects/deepspeed/zero2.json",
        f"train.output_dir={world}/{out}",
        f"train.max_steps={STEPS}",
        f"train.save_steps={STEPS}",
    ]
    for old, new in (
        ("--nproc-per-node 8", "--nproc-per-node 1"),
        (":29500", f":{port}"),
        ("scripts/finetune_vicuna.py", f"{ROOT}/scripts/pretrain_projector.py"),
        ("projects/tove_vicuna_7b/finetune.yaml", "pretrain.yaml"),
        ("train.per_device_train_batch_size=8", " ".join(options)),
    ):
        assert block.count(old) == 1, old
        block = block.replace(old, new)
    path = world / "job.sh"
    path.write_text(block)
    return path


def submit(world: Path, out: str, log: Path) -> subprocess.Popen:
    """What `sbatch` does."""
    for name, script in (("srun", SRUN), ("scontrol", SCONTROL)):
        tool = world / "bin" / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(script)
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    port = free_port()
    slurm = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": str(port)}
    env = environment() | slurm
    env["PATH"] = f"{world / 'bin'}:{env['PATH']}"
    command = ["bash", str(batch_file(world, out, port))]
    return subprocess.Popen(command, cwd=world, env=env, stdout=log.open("ab"), stderr=subprocess.STDOUT)


@pytest.mark.full
def test_a_job_whose_time_is_up_writes_a_checkpoint_and_goes_on(world):
    log = world / "log"
    assert submit(world, "whole", log).wait(timeout=300) == 0, log.read_text()[-3000:]
    job = submit(world, "parts", log)
    limit = time.monotonic() + 300
    while not (world / "parts" / "metrics.jsonl").is_file():
        assert time.monotonic() < limit, log.read_text()[-3000:]
        time.sleep(0.01)
    (srun,) = (child for child in psutil.Process(job.pid).children() if "srun" in " ".join(child.cmdline()))
    srun.send_signal(signal.SIGTERM)
    assert job.wait(timeout=300) != 0
    (left,) = checkpoint.checkpoints(world / "parts")
    assert 0 < int(left.name.split("-")[1]) < STEPS, "written because it was told to stop"
    assert submit(world, "parts", log).wait(timeout=300) == 0, log.read_text()[-3000:]
    assert f"resuming from {left}" in log.read_text()
    assert metrics(world / "parts") == metrics(world / "whole")
    assert same(weights(world / "parts"), weights(world / "whole"))
