"""`tove info`: what a training YAML's model will cost, without a weight, a data file or a GPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import nn

from ..config import read_yaml
from ..lvlm.budget import Part, memory
from .encoder_decoder import report as encoder_decoder
from .llava import report as llava

GIB = 2**30


def budget_report(cfg_path: str | Path, options: list[str], stage: str | None = None) -> dict[str, Any]:
    """Sizes, FLOPs and memory of a run's model at its real size, built on the meta device.

    Args:
        cfg_path: The training YAML.
        options: `a.b=c` strings.
        stage: Of LLaVA's, `pretrain` or `finetune`; none reads it off the YAML: LoRA or a start from stage 1 mean
            `finetune`.

    Returns:
        Plain numbers: `stage`, `visual_tokens`, `parts` (name, trainable, frozen, flops), `totals`, `memory` (setting,
        num_gpus, gpu_bytes, host_bytes), `note`.

    Raises:
        ConfigError: The YAML does not fit, or the size of a part on the hub is not stated in it.
    """
    block = read_yaml(cfg_path, options).get("model")
    is_base = isinstance(block, dict) and {"decoder", "pretrained"} & block.keys()
    if is_base:
        stage, num_tokens, model, rows, note = encoder_decoder.sized_model(cfg_path, options)
    else:
        stage, num_tokens, model, rows, note = llava.sized_model(cfg_path, options, stage)
    return _plain(stage, num_tokens, model, rows) | {"note": note}


def _plain(stage: str, num_tokens: int, model: nn.Module, rows: Sequence[Part]) -> dict[str, Any]:
    return {
        "stage": stage,
        "visual_tokens": num_tokens,
        "parts": [{"name": r.name, "trainable": r.trainable, "frozen": r.frozen, "flops": r.flops} for r in rows],
        "totals": {key: sum(getattr(r, key) for r in rows) for key in ("trainable", "frozen", "flops")},
        "memory": [
            {"setting": m.setting, "num_gpus": m.num_gpus, "gpu_bytes": m.gpu_bytes, "host_bytes": m.host_bytes}
            for m in memory(model)
        ],
    }


def print_budget(report: dict, console: Console) -> None:
    """The report as two tables."""
    table = Table("part", "trainable", "frozen", "GFLOPs per image", title=f"stage: {report['stage']}")
    for row in report["parts"]:
        table.add_row(*_cells(row["name"], row))
    table.add_section()
    table.add_row(*_cells("total", report["totals"]))
    console.print(table)
    console.print(f"{report['visual_tokens']} visual tokens per image; {report['note']}")
    settings = list(dict.fromkeys(row["setting"] for row in report["memory"]))
    table = Table("GPUs", *settings, title="GiB of model states per GPU (and of host memory per node)")
    for num_gpus in dict.fromkeys(row["num_gpus"] for row in report["memory"]):
        rows = {row["setting"]: row for row in report["memory"] if row["num_gpus"] == num_gpus}
        cells = [f"{rows[s]['gpu_bytes'] / GIB:.1f} ({rows[s]['host_bytes'] / GIB:.0f})" for s in settings]
        table.add_row(str(num_gpus), *cells)
    console.print(table)
    console.print("Activations come on top: they depend on batch, text length and gradient checkpointing.")


def _cells(name: str, row: dict) -> list[str]:
    return [name, f"{row['trainable'] / 1e6:.2f} M", f"{row['frozen'] / 1e6:.2f} M", f"{row['flops'] / 1e9:.1f}"]
