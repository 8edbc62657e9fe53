"""The command `tove info`: of a tower's YAML, or of a project's."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import JsonFlag, Options, app, console
from .cost_tables import commercial, gives, number, plain_table, size_cells, table_console
from .experts import BatchSize, Device, Dtype, MeasureFlag, measured_setting, times_line

# `--options` takes one value as far as click knows; the further ones arrive as arguments, beside the tower's place.
Places = Annotated[list[str] | None, typer.Argument(metavar="[TOWER.yaml]", help="A tower's YAML.")]


@app.command()
def info(
    sources: Places = None,
    cfg_path: Annotated[
        Path | None,
        typer.Option("--cfg-path", help="A project's YAML instead: its whole model, language model included."),
    ] = None,
    options: Options = None,
    measure: MeasureFlag = False,
    device: Device = None,
    dtype: Dtype = None,
    batch_size: BatchSize = 8,
    checksums: Annotated[
        bool, typer.Option("--checksums", help="Compare weights with the sha256 of the YAML.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """What a tower's parts cost, which weights are missing, what licences allow; or the sizes of a project's model
    without its weights: parameters, visual tokens, FLOPs, memory per GPU.
    """
    from ..config import UserError

    changes = [*(options or []), *(source for source in sources or [] if "=" in source)]
    towers = [source for source in sources or [] if "=" not in source]
    if len(towers) + (cfg_path is not None) != 1:
        raise UserError("tove info takes a tower's YAML, or a project's with --cfg-path; one of the two")
    if cfg_path is not None:
        _project(cfg_path, changes, as_json)
        return
    from ..tower.inventory import TimingConfig, tower_inventory

    setting = measured_setting(device, dtype, batch_size) if measure else None
    requested = (
        None if setting is None else TimingConfig(**{key: setting[key] for key in ("device", "dtype", "batch_size")})
    )
    report = tower_inventory(towers[0], changes, requested, checksums) | {"measured": setting}
    if as_json:
        print(json.dumps(report))
    else:
        _print(report)


def _project(cfg_path: Path, options: list[str], as_json: bool) -> None:
    from ..recipes.report import budget_report, print_budget

    report = budget_report(cfg_path, options)
    if as_json:
        print(json.dumps(report))
    else:
        print_budget(report, console)


def _print(report: dict[str, Any]) -> None:
    out, timed = table_console(), report["measured"] is not None
    columns = ["gives", "px", "parameters", "GFLOPs", "disk", "bf16", *(["ms"] if timed else [])]
    table = plain_table("part", *columns, "licence of weights", "commercial", "weights")
    for row in report["parts"]:
        table.add_row(*_cells(row, timed), style="dim" if row["detached"] else None)
    total, relative = report["total"], report["relative_to_clip"]
    ms = [number(total["ms"], ".1f")] if timed else []
    table.add_section()
    table.add_row("total", "", "", *size_cells(total), *ms, "", commercial(report), "")
    keys = ("parameters", "gflops", "disk_bytes", "bf16_bytes", *(["ms"] if timed else []))
    base = "CLIP" if report["parts"][0]["family"] == "clip" else "base"
    table.add_row(f"x {base} alone", "", "", *(number(relative[key], ".2f") for key in keys), "", "", "")
    out.print(table)
    out.print(
        f"{report['image_size']} x {report['image_size']} pixels in, {report['visual_tokens']} tokens of width "
        f"{report['width']} out; disk: the file that is here, else the weights in float32.",
        markup=False,
        soft_wrap=True,
    )
    for row in report["parts"]:
        if row["name"] in report["missing"]:
            out.print(f"{row['name']}: {row['weights']['problem']}", markup=False, soft_wrap=True)
    if report["missing"]:
        out.print(f"To get what is missing: tove fetch {report['tower']} --to DIR", markup=False, soft_wrap=True)
    if timed:
        out.print(times_line(report["measured"]), markup=False, soft_wrap=True)


def _cells(row: dict[str, Any], timed: bool) -> list[str]:
    name = f"{row['name']} (detached)" if row["detached"] else row["name"]
    if row["name"] == "clip" and row["family"] != "clip":
        name = "base"
    ms = [number(row["ms"], ".1f")] if timed else []
    if row["kind"] == "fusion":
        return [name, "", "", *size_cells(row), *ms, "", "", "trained"]
    licence = row["license"] or ("-" if row["pretrained"] else "")
    return [
        name,
        gives(row),
        str(row["image_size"]),
        *size_cells(row),
        *ms,
        licence,
        commercial(row),
        row["weights"]["state"],
    ]
