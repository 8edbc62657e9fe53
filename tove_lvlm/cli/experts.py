"""The command `tove experts`."""

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .app import JsonFlag, app, choose_device, console

DTYPES = ("float32", "bfloat16", "float16")
Names = Annotated[list[str] | None, typer.Argument(help="Of the catalogue, timm/NAME or open_clip/NAME/TAG; else all.")]
MeasureFlag = Annotated[bool, typer.Option("--measure", help="Time a forward here, with random weights.")]
Device = Annotated[str | None, typer.Option(help="With --measure; else CUDA when there is one.")]
Dtype = Annotated[str | None, typer.Option(help="With --measure; else bfloat16 on CUDA, float32 on a CPU.")]
BatchSize = Annotated[int, typer.Option(help="With --measure: images of a forward.", min=1)]


@app.command()
def experts(
    names: Names = None,
    kind: Annotated[str | None, typer.Option(help="Only embedding, or only low_level.")] = None,
    measure: MeasureFlag = False,
    device: Device = None,
    dtype: Dtype = None,
    batch_size: BatchSize = 8,
    as_json: JsonFlag = False,
) -> None:
    """List the experts that a tower YAML can name: what they give, what they cost, what their licences allow."""
    from ..experts.info import find_experts

    infos = find_experts(names or [], kind)
    rows = [item.as_dict() for item in infos]
    setting = measured_setting(device, dtype, batch_size) if measure else None
    if setting is not None:
        _add_times(rows, [item.fields for item in infos], setting)
    if as_json:
        print(json.dumps({"experts": rows, "families": families(), "measured": setting}))
        return
    _print(rows, setting, details=bool(names))


def families() -> list[dict[str, str]]:
    """The families that `family:` can name, those of plugins included, with a line on each."""
    from ..experts.schema import EXPERT_CONFIGS, load_plugins

    load_plugins()
    schemas = {name: EXPERT_CONFIGS.get(name) for name in EXPERT_CONFIGS.names()}
    return [
        {"family": name, "about": (schema.__doc__ or "").strip().split("\n")[0]} for name, schema in schemas.items()
    ]


def measured_setting(device: str | None, dtype: str | None, batch_size: int) -> dict[str, Any]:
    """Where and how times are measured, with the hardware's name.

    Raises:
        UserError: No such device or dtype.
    """
    from ..config import UserError
    from ..provenance import hardware

    resolved = choose_device(device)
    dtype = dtype or ("bfloat16" if resolved.startswith("cuda") else "float32")
    if dtype not in DTYPES:
        raise UserError(f"--dtype is `{dtype}`; valid: {' | '.join(DTYPES)}")
    return {"device": resolved, "hardware": hardware(resolved), "dtype": dtype, "batch_size": batch_size}


def _add_times(rows: list[dict[str, Any]], fields: list[Mapping[str, Any]], setting: dict[str, Any]) -> None:
    from rich.progress import track

    from ..experts.info import measure_network

    messages = Console(stderr=True)
    pairs = track(list(zip(rows, fields, strict=True)), "timing", console=messages, transient=True)
    for row, name in pairs:
        try:
            row["ms"] = measure_network(name, setting["device"], setting["dtype"], setting["batch_size"])
        except ImportError as error:
            row["ms"] = None
            print(f"{row['name']}: not timed: {error}", file=sys.stderr)


def _print(rows: list[dict[str, Any]], setting: dict[str, Any] | None, details: bool) -> None:
    from .cost_tables import detail_table, expert_table, table_console

    out = table_console()
    if details:
        for row in rows:
            out.print(detail_table(row))
            out.print()
    else:
        out.print(expert_table(rows))
        listed = Table("family", "what it is", title="any other network, with `family:` in a tower's YAML")
        for row in families():
            listed.add_row(row["family"], row["about"])
        out.print(listed)
        out.print("`tove experts NAME` shows all that one declares; NAME may also be timm/NAME or open_clip/NAME/TAG.")
    for row in rows:
        if row["needs"] and not details:
            out.print(f"{row['name']}: {row['needs']}", markup=False)
    if setting is not None:
        console.print(times_line(setting), markup=False, soft_wrap=True)


def times_line(setting: dict[str, Any]) -> str:
    """How the times were measured, for people."""
    return (
        f"ms per image: {setting['hardware']}, {setting['dtype']}, batch {setting['batch_size']}, random weights, "
        "median of 5 forwards"
    )
