"""The command line that the miniature's benchmarks share. Nothing heavy is imported."""

import argparse
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "miniature_study"


def make_parser(description: str) -> argparse.ArgumentParser:
    """Its options: `--quick`, `--seeds`, `--workers`, `--output`, `--results`."""
    parser = argparse.ArgumentParser(description=description.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="one seed, few rows, few steps")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 1 2, or 0 with --quick")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at once, one thread each")
    parser.add_argument("--output", type=Path, help="data, models and logs; default a folder in outputs/")
    parser.add_argument("--results", type=Path, help=f"JSON, figures and tables; default {RESULTS.relative_to(ROOT)}")
    return parser


def parse(parser: argparse.ArgumentParser, name: str) -> argparse.Namespace:
    """The command line, what was left out filled in.

    Args:
        parser: From `make_parser`.
        name: Folder in `outputs/`; with `--quick` it ends in `_quick`, and the results lie in it too.
    """
    arguments = parser.parse_args()
    arguments.seeds = arguments.seeds or ([0] if arguments.quick else [0, 1, 2])
    arguments.output = arguments.output or ROOT / "outputs" / (f"{name}_quick" if arguments.quick else name)
    arguments.results = arguments.results or (arguments.output / "results" if arguments.quick else RESULTS)
    return arguments
