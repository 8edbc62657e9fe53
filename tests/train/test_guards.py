"""The watchdog ends a hung process with its own exit code and says where it hung."""

import subprocess
import sys

from tove_lvlm.train.guards import Watchdog

HANG = """
import time
from tove_lvlm.train.guards import Watchdog
with Watchdog(timeout=0.4).watching() as watchdog:
    for step in range(1, 4):  # as long as steps finish, nothing happens
        watchdog.alive(step, [f"sample-{step}"])
        time.sleep(0.2)
    time.sleep(30)
"""


def test_a_stall_ends_the_run_and_names_step_and_samples():
    done = subprocess.run([sys.executable, "-c", HANG], capture_output=True, text=True, timeout=120)
    assert done.returncode == Watchdog.EXIT_CODE == 70
    assert "at step 3; samples on this rank: sample-3" in done.stderr
    assert "time.sleep" in done.stderr or "<string>" in done.stderr  # where every thread stood


def test_zero_watches_nothing():
    with Watchdog(timeout=0).watching() as watchdog:
        watchdog.alive(1)
