"""The command line of the training scripts, up to the point where torch is needed.

Everything that can be wrong in the configuration is found here, in under a second and before torch is imported.

See docs/design.md, "Configuration".
"""

import argparse
import contextlib
import hashlib
import logging
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from ..config import ConfigError, UserError
from ..data.errors import DataError
from ..storage import disk_message
from ..streams import prepare_streams
from .guards import TrainingStopped
from .stage import Stage, load_run

logger = logging.getLogger(__name__)


def main(stage: Stage, argv: Sequence[str] | None = None) -> int:
    """Run a stage from command-line arguments.

    Args:
        stage: What to train, such as `recipes.llava.PRETRAIN`.
        argv: Arguments; none takes the process's own.

    Returns:
        Exit code: 0 done, 1 the run could not go on, 2 the input is wrong, 128 + n stopped by signal n.
    """
    if argv is None:  # a process of its own
        prepare_streams(keep_going=True)
    arguments = parse_arguments(stage, argv)
    return guarded(stage, lambda: load_run(stage, arguments.cfg_path, arguments.options), arguments.local_rank)


def guarded(stage: Stage, load: Callable[[], Any], local_rank: int | None = None) -> int:
    """Load a configuration and run its stage; what goes wrong is one line.

    Args:
        stage: As for `main`.
        load: Gives the resolved configuration.
        local_rank: From the launcher.

    Returns:
        Exit code, as `main`.
    """
    try:
        config = load()
        prepare_environment(config, local_rank)
        _configure_logging()
        from .run import run_stage  # imports torch, which reads the environment

        return run_stage(stage, config)
    except (UserError, DataError) as error:
        return _report(error, 2)
    except (ImportError, TrainingStopped) as error:
        return _report(error, 1)
    except Exception as error:  # a full or unplugged disk, at any write that has no message of its own
        message = disk_message(error)
        if message is None:
            raise
        return _report(UserError(message), 1)


def parse_arguments(stage: Stage, argv: Sequence[str] | None) -> argparse.Namespace:
    """LAVIS's two flags, and the rank that the DeepSpeed launcher puts in front of them."""
    parser = argparse.ArgumentParser(description=stage.description, allow_abbrev=False)
    parser.add_argument("--cfg-path", required=True, metavar="FILE", help="YAML of the run")
    parser.add_argument(
        "--options", nargs="+", action="extend", default=[], metavar="a.b=c", help="values that override the YAML's"
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=None, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def prepare_environment(config: Any, local_rank: int | None) -> None:
    """Set what torch and DeepSpeed read from the environment: ranks for a plain `python` start, and CPU threads."""
    if local_rank is not None:
        os.environ.setdefault("LOCAL_RANK", str(local_rank))
    _check_ranks()
    if (config.train.deepspeed is not None or config.train.fsdp) and "RANK" not in os.environ:
        if local_rank not in (None, 0):
            raise ConfigError(
                f"--local_rank is {local_rank}, but RANK is not set; start with `deepspeed` or `torchrun`"
            )
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ.setdefault("MASTER_PORT", str(_free_port()))
    if config.train.num_threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(config.train.num_threads)
    elif (threads := _threads_of_environment()) is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    else:
        local_size = local_world_size()
        os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // local_size))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # workers are forked
    _keep_compiled_ops_apart()


def _check_ranks() -> None:
    """RANK and WORLD_SIZE come together, from a launcher; a left-over of one would hang or crash in torch."""
    given = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE")}
    wrong = [name for name, text in given.items() if text is not None and not text.isdecimal()]
    if wrong:
        raise ConfigError(f"{wrong[0]} is `{given[wrong[0]]}` in the environment; expected a number, or leave it unset")
    rank, size = given["RANK"], given["WORLD_SIZE"]
    if (rank is None) != (size is None) or (rank is not None and size is not None and int(rank) >= int(size)):
        raise ConfigError(
            f"RANK is {rank} and WORLD_SIZE is {size} in the environment, which do not go together; unset both, or "
            "start with `deepspeed` or `torchrun`"
        )


def _threads_of_environment() -> int | None:
    """OMP_NUM_THREADS as OpenMP reads it: a list is for nested regions, of which torch has the first."""
    text = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if text and not (text.isdecimal() and int(text) > 0):
        raise ConfigError(f"OMP_NUM_THREADS is `{text}` in the environment; expected 1 or more, or leave it unset")
    return int(text) if text else None


def _keep_compiled_ops_apart() -> None:
    """DeepSpeed compiles a small op at its first start (half a minute) and keeps it in one folder for all of a user's
    environments, where another torch or another ninja makes it compile anew at every start: give each its own folder
    and the ninja that is installed beside this python.
    """
    bin_folder = os.path.dirname(sys.executable)
    if os.environ.get("PATH", "").split(os.pathsep)[0] != bin_folder:
        os.environ["PATH"] = os.pathsep.join(filter(None, [bin_folder, os.environ.get("PATH", "")]))
    if "TORCH_EXTENSIONS_DIR" not in os.environ:
        environment = os.path.join("torch_extensions", hashlib.sha256(sys.prefix.encode()).hexdigest()[:12])
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        folder = os.path.join(cache, environment)
        if not _can_write(folder):  # a home that is read-only, or of nobody
            folder = os.path.join(_own_temporary(), environment)
        os.environ["TORCH_EXTENSIONS_DIR"] = folder


def _own_temporary() -> str:
    """A folder for temporary files that only this user can write: what is compiled there is run."""
    folder = os.path.join(tempfile.gettempdir(), f"tove_lvlm-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, mode=0o700)
    about = os.lstat(folder)
    if stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o022:
        return folder
    return tempfile.mkdtemp(prefix="tove_lvlm-")


def _can_write(folder: str) -> bool:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def local_world_size() -> int:
    """Ranks on this machine."""
    if given := os.environ.get("LOCAL_SIZE") or os.environ.get("LOCAL_WORLD_SIZE"):
        return int(given)
    # DeepSpeed's launcher gives no local size; on one node it is the whole.
    nodes = int(os.environ.get("CROSS_SIZE", 1))
    return max(1, int(os.environ.get("WORLD_SIZE", 1)) // nodes)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _configure_logging() -> None:
    level = logging.INFO if int(os.environ.get("RANK", 0)) == 0 else logging.ERROR
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    logging.getLogger("tove_lvlm").setLevel(level)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft imports it where it is installed


def _report(error: Exception, code: int) -> int:
    line = " ".join(str(error).split())
    prefix = f"rank {os.environ['RANK']}: " if int(os.environ.get("WORLD_SIZE", 1)) > 1 else ""
    sys.stderr.write(f"error: {prefix}{line}\n")
    sys.stderr.flush()
    return code
