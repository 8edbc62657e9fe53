"""Run a script of benchmarks/ as a user does."""

import os
import subprocess
import sys

from .paths import ROOT


def run_benchmark(script: str, *arguments: object, timeout: float = 3000) -> str:
    """What it prints; it must end well."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout
