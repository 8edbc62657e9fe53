"""Long runs of the fuzz suite, and failures run again.

python -m tests.fuzz --minutes 60              all targets in turn, with seeds that no run had before
python -m tests.fuzz --target rows --seed 7    one target, from a seed
python -m tests.fuzz --replay FILE             one failure that a run has written
"""

import argparse
import logging
import os
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROUND = 60.0
"""Seconds of a target, at most, before the next one has its turn."""


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for.

    Returns:
        0 where the property holds everywhere, 1 otherwise.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of the whole run")
    parser.add_argument("--target", action="append", help="only this one; may be given several times")
    parser.add_argument("--seed", type=int, help="of the first round; else random")
    parser.add_argument("--failures", type=Path, default=Path("build/fuzz"), help="folder for failures' files")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run this failure again and nothing else")
    options = parser.parse_args(arguments)
    _prepare()
    if options.replay is not None:
        from .run import replay

        print(f"{options.replay}: the property holds by now, {replay(options.replay)}")
        return 0
    return _run(options.minutes, options.target, options.seed, options.failures)


def _prepare() -> None:
    """What pytest's configuration and conftest.py do: `helpers` can be imported, no hub, a state folder of its own."""
    sys.path.insert(0, str(TESTS))
    for name, value in {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}.items():
        os.environ.setdefault(name, value)
    os.environ["TOVE_STATE_DIR"] = tempfile.mkdtemp(prefix="tove-fuzz-state-")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.ERROR)


def _run(minutes: float, names: list[str] | None, seed: int | None, folder: Path) -> int:
    from .run import FailureFoundError, fuzz, write_failure
    from .targets import TARGETS

    unknown = sorted(set(names or ()) - set(TARGETS))
    if unknown:
        print(f"unknown target {unknown[0]}; there are {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    totals = {name: Counter() for name in names or TARGETS}
    seconds, failures = Counter(), []
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        seed = secrets.randbits(32) if seed is None else seed
        for name in totals:
            left = min(ROUND, 60 * minutes / len(totals), end - time.monotonic())
            if left <= 0:
                break
            start = time.monotonic()
            try:
                counts = fuzz(TARGETS[name], max_examples=100_000, seed=seed, seconds=left)
                totals[name] += counts.outcomes
                print(f"{name}, seed {seed}: {counts}", flush=True)
            except FailureFoundError as failure:
                totals[name]["failed"] += 1
                failures.append(write_failure(failure, folder))
                print(f"{name}, seed {seed}: FAILED, {failure.reason.splitlines()[-1]}\n  {failures[-1]}", flush=True)
            seconds[name] += time.monotonic() - start
        seed = None
    for name, outcomes in totals.items():
        told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
        print(f"{name:12} {outcomes.total():8} examples in {seconds[name]:7.1f} s: {told}")
    for path in sorted({*failures}):
        print(f"run again: python -m tests.fuzz --replay {path}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
