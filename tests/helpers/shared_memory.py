"""DeepSpeed's all-reduce buffers in /dev/shm: a rank that is killed leaves its own, and nobody else removes it."""

import contextlib
from pathlib import Path

PATTERN = "deepspeed_allreduce_buffer*"


def remove_unused_buffers(folder: Path = Path("/dev/shm"), processes: Path = Path("/proc")) -> list[Path]:
    """Remove those that no process has mapped.

    Args:
        folder: Where they are.
        processes: Linux's list of processes; where there is none nothing is removed.

    Returns:
        What was removed.
    """
    buffers = list(folder.glob(PATTERN))
    if not buffers or not processes.is_dir():
        return []
    mapped = ""
    for maps in processes.glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            mapped += maps.read_text()
    unused = [buffer for buffer in buffers if str(buffer) not in mapped]
    for buffer in unused:
        with contextlib.suppress(OSError):
            buffer.unlink()
    return unused
