"""`tove info`: what a training YAML's model will cost, without a weight, a data file or a GPU."""

import dataclasses
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ...config import load
from ...config.llava import RunConfig
from ...config.sources import resolve_path
from ...lvlm.budget import memory, parts
from ...lvlm.meta import build_unloaded
from .setup import set_trainable

GIB = 2**30


def budget_report(cfg_path: str | Path, options: list[str], stage: str | None = None) -> dict:
    """Sizes, FLOPs and memory of a run's model at its real size, built on the meta device.

    Args:
        cfg_path: The training YAML.
        options: `a.b=c` strings.
        stage: `pretrain` or `finetune`; none reads it off the YAML: LoRA or a start from stage 1 mean `finetune`.

    Returns:
        Plain numbers: `stage`, `visual_tokens`, `parts` (name, trainable, frozen, flops), `totals`, `memory` (setting,
        num_gpus, gpu_bytes, host_bytes).

    Raises:
        ConfigError: The YAML does not fit, or the size of a part on the hub is not stated in it.
    """
    config = load(RunConfig, cfg_path, options)
    stage = stage or ("finetune" if config.lora.lora_enable or config.model.pretrain_mm_mlp_adapter else "pretrain")
    tower = resolve_path("model.tower", config.model.tower, Path(cfg_path).resolve().parent, "file")
    unloaded = build_unloaded(dataclasses.replace(config.model, tower=tower))
    num_tokens = unloaded.config.image_seq_length
    model = set_trainable(unloaded, stage, config)
    rows = parts(model)
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
    console.print(f"{report['visual_tokens']} visual tokens per image")
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
