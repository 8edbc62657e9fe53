"""Kills commands at random moments, runs them again and compares. From the checkout's root:

python -m tests.kill --runs 100 [--seed N] [--only COMMAND[:RANKS] ...] [--seconds N] [--json FILE]
python -m tests.kill --again COMMAND:RANKS:SEED        one run anew, as a failure prints it
"""

import argparse
import json
import os
import shutil
import site
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def _prepare_environment() -> None:
    """Before torch is imported: offline, no GPU, one thread, so that this process may be forked."""
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
        "MPLBACKEND": "agg",
        "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    site.addsitedir(str(TESTS))  # `helpers` and this package, as pytest finds them


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=100, help="kills and runs after them, over all commands")
    parser.add_argument("--seed", type=int, default=None, help="else drawn; printed")
    parser.add_argument("--only", nargs="+", metavar="COMMAND[:RANKS]", help="these commands")
    parser.add_argument("--again", metavar="COMMAND:RANKS:SEED", help="one run anew")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no run is begun after so many")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the table as JSON")
    parser.add_argument("--work", type=Path, metavar="DIR", help="else a temporary folder, kept after a failure")
    return parser.parse_args()


def main() -> int:
    """Exit code: 0 when no run failed."""
    arguments = _parse()
    _prepare_environment()
    from kill.suite import Suite, chosen

    wanted = [arguments.again.rpartition(":")[0]] if arguments.again else arguments.only
    try:
        pairs = chosen(wanted)
    except KeyError as error:
        print(f"error: {error.args[0]}", file=sys.stderr)
        return 2
    work = Path(tempfile.mkdtemp(prefix="tove-kill-")) if arguments.work is None else arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    suite = Suite(work, pairs, end=time.monotonic() + arguments.seconds)
    if arguments.again:
        suite.again(int(arguments.again.rpartition(":")[2]))
    else:
        seed = int(time.time()) % 1_000_000 if arguments.seed is None else arguments.seed
        print(f"seed {seed}, folder {work}", flush=True)
        suite.go(arguments.runs, seed)
    report, text = suite.report()
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if not suite.failures and arguments.work is None:
        shutil.rmtree(work, ignore_errors=True)
    return int(suite.failures > 0)


if __name__ == "__main__":
    sys.exit(main())
