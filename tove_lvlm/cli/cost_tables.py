"""How experts and the parts of a tower are shown: `tove experts`, `tove info TOWER.yaml`."""

import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..licenses import NO, YES
from .app import console

_STYLES = {NO: "bold red"}
_PIPED_WIDTH = 140


def table_console() -> Console:
    """The terminal; a file or a pipe gets lines as wide as a table of costs needs."""
    return console if sys.stdout.isatty() else Console(width=_PIPED_WIDTH)


def plain_table(first: str, *columns: str) -> Table:
    """Columns of numbers under a first one with names."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first)
    for column in columns:
        left = column in ("licence of weights", "commercial", "weights")
        table.add_column(column, justify="left" if left else "right")
    return table


def expert_table(rows: list[dict[str, Any]]) -> Table:
    """One line for each expert.

    Args:
        rows: `ExpertInfo.as_dict()`, with `ms` where it was measured.
    """
    timed = any("ms" in row for row in rows)
    columns = ["gives", "px", "parameters", "GFLOPs", "disk", "bf16", *(["ms"] if timed else [])]
    table = plain_table("expert", *columns, "licence of weights", "commercial")
    kind = None
    for row in sorted(rows, key=lambda row: str(row["kind"])):
        if kind is not None and row["kind"] != kind:
            table.add_section()
        kind = row["kind"]
        ms = [number(row.get("ms"), ".1f")] if timed else []
        cells = [gives(row), str(row["image_size"]), *size_cells(row), *ms]
        table.add_row(row["name"], *cells, row["license"] or "-", commercial(row))
    return table


def detail_table(row: dict[str, Any]) -> Table:
    """Everything that one expert declares."""
    table = Table(box=None, show_header=False, title=row["about"] or None, title_justify="left", pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    parameters, gflops, disk, bf16 = size_cells(row)
    weights = {key: row[key] for key in ("pretrained", "revision", "file", "sha256") if row[key]}
    lines = {
        "expert": row["name"],
        "kind": row["kind"] or "-",
        "network": f"{row['library'] or row['family']}: {row['architecture'] or '-'}",
        "gives": f"{gives(row)} ({row['output'] or '-'}) for {row['image_size']} x {row['image_size']} pixels",
        "normalisation": f"mean {row['mean']}, std {row['std']}",
        "parameters": parameters,
        "GFLOPs per image": gflops,
        "weights on disk": f"{disk} in float32",
        "memory in bf16": bf16,
        "weights": ", ".join(f"{key} {value}" for key, value in weights.items()) or "none of its own",
        "licences": f"code {row['code_license'] or 'not known'}, weights {row['license'] or 'not stated'}",
        "commercial use": "; ".join([commercial(row), *row["terms"]]),
    }
    if "ms" in row:
        lines["ms per image"] = number(row["ms"], ".2f")
    if row["needs"]:
        lines["to install"] = row["needs"]
    for key, value in lines.items():
        table.add_row(key, value)
    return table


def size_cells(row: dict[str, Any]) -> list[str]:
    """Parameters, GFLOPs, size on disk, memory in bf16."""
    if row["parameters"] is None:
        return ["-"] * 4
    return [
        f"{row['parameters'] / 1e6:.1f} M",
        number(row["gflops"], ".1f"),
        mebibytes(row["disk_bytes"] if "disk_bytes" in row else row["float32_bytes"]),
        mebibytes(row["bf16_bytes"]),
    ]


def gives(row: dict[str, Any]) -> str:
    """Channels and grid."""
    return "-" if row["channels"] is None else f"{row['channels']} x {row['grid'][0]}x{row['grid'][1]}"


def commercial(row: dict[str, Any]) -> str:
    """`yes`, `no` or `unknown`, the last two so that they are seen; `yes, terms` where a licence says more."""
    answer, style = row["commercial"], _STYLES.get(row["commercial"], "yellow")
    if answer == YES:
        return f"{YES}, terms" if row.get("terms") else YES
    return f"[{style}]{answer}[/]"


def mebibytes(value: int) -> str:
    """Bytes in MiB."""
    return f"{value / 2**20:.0f} MiB" if value >= 2**20 else f"{value / 2**20:.2g} MiB"


def number(value: float | None, form: str) -> str:
    """A number, or `-` where there is none."""
    return "-" if value is None else format(value, form)
