"""Runs `tove eval` on two ranks under torchrun's own agent. The ranks are forks, so that torch is imported once.

python -m helpers.two_ranks FOLDER ARGUMENT...      FOLDER gets `pid-RANK` of each rank
"""

import os
import sys
from pathlib import Path


def rank(folder: str, arguments: list[str]) -> None:
    from tove_lvlm import cli

    (Path(folder) / f"pid-{os.environ['RANK']}").write_text(str(os.getpid()))
    sys.argv = ["tove", *arguments]
    try:
        cli.main()
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"exit code {ended.code}") from ended


if __name__ == "__main__":
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    import tove_lvlm.checkpoints  # noqa: F401

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id="two-ranks",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
        start_method="fork",
    )
    elastic_launch(config, rank)(sys.argv[1], sys.argv[2:])
