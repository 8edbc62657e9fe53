"""Running sums between two log lines, and the file that the lines go to.

See docs/design.md, "Training".
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from .. import dist
from ..storage import atomic_file


class FigureMeter:
    """Means of the scalars that a model gives with its loss, over the micro-batches since the last log line.

    Sums stay on the model's device until they are read, so that no step waits for them.
    """

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Start anew after a log line."""
        self.sums: dict[str, torch.Tensor] = {}
        self.batches = self.images = 0.0
        self.started = time.perf_counter()

    @torch.no_grad()
    def add(self, inputs: dict[str, torch.Tensor], figures: dict[str, torch.Tensor]) -> None:
        """Count a micro-batch.

        Args:
            inputs: The batch as the model gets it, with `pixel_values`.
            figures: Scalars by name, the same names every time.
        """
        for name, value in figures.items():
            total = value.detach().double()
            self.sums[name] = self.sums[name].to(total.device) + total if name in self.sums else total
        self.batches += 1
        self.images += len(inputs["pixel_values"])

    def read(self, device: torch.device) -> dict[str, float]:
        """The figures over all ranks since the last reset; every rank must call.

        Args:
            device: Where the process group reduces.
        """
        seconds = max(time.perf_counter() - self.started, 1e-9)
        counts = torch.tensor([self.batches, self.images], dtype=torch.float64, device=device)
        values = torch.cat([counts, *(total.to(device)[None] for total in self.sums.values())])
        batches, images, *sums = dist.all_reduce_sum(values.float()).tolist()
        means = {name: total / max(batches, 1.0) for name, total in zip(self.sums, sums, strict=True)}
        return means | {"images_per_s": images / seconds, "peak_memory_gb": peak_memory_bytes() / 1e9}

    def state(self) -> dict[str, Any]:
        """The sums for a checkpoint, so that a resumed run logs what an uninterrupted one would."""
        sums = {name: total.item() for name, total in self.sums.items()}
        return {"sums": sums, "counts": (self.batches, self.images)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up the sums of a checkpoint."""
        self.sums = {name: torch.tensor(total, dtype=torch.float64) for name, total in state["sums"].items()}
        self.batches, self.images = state["counts"]


def peak_memory_bytes() -> int:
    """Largest GPU memory taken by tensors so far, or this process's largest resident size without a GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


class MetricsFile:
    """`metrics.jsonl`: one JSON object for each log line. Rank 0 only."""

    def __init__(self, path: Path):
        self.path = path

    def cut(self, step: int) -> None:
        """Drop lines after `step`, which a resumed run will write again; 0 empties the file."""
        if self.path.is_file():
            lines = [line for line in self.path.read_text(encoding="utf-8").splitlines() if _step(line) <= step]
            with atomic_file(self.path) as temporary:  # a kill must not take the lines that are kept
                temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def append(self, values: dict[str, Any]) -> None:
        """Write one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")  # cut short by a kill
