"""How a figure was made: what the benchmarks of one process write beside it."""

import argparse
import sys
from typing import Any

import torch

from tove_lvlm.provenance import commit, hardware


def made_by(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Command, commit, hardware and torch.

    Args:
        arguments: The command line; has `device`.
        *names: Options that are named one by one too.
    """
    return {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit(),
        "hardware": hardware(arguments.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **{name: getattr(arguments, name) for name in names},
    }
