"""The command `tove usage`."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from .app import JsonFlag, app, choose_device, console, counted


@app.command()
def usage(
    checkpoint: Annotated[Path, typer.Argument(help="A trained model, an adapter, stage 1's folder, or a tower.")],
    data: Annotated[Path | None, typer.Option(help="LLaVA JSON, or questions as JSON lines.")] = None,
    image_folder: Annotated[Path | None, typer.Option(help="Of --data; else images/ beside it.")] = None,
    images: Annotated[Path | None, typer.Option(help="A folder of images instead: neither loss nor score.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many samples, or images.", min=1)] = None,
    output: Annotated[Path | None, typer.Option(help="Else outputs/usage/NAME of the checkpoint.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images, and conversations, at a time.", min=1)] = 32,
    workers: Annotated[int, typer.Option(help="Processes that read images, for each rank.", min=0)] = 0,
    device: Annotated[str | None, typer.Option(help="Else CUDA when there is one.")] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Estimate the loss without each expert by gradients: one pass for all.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Who is used: gate mass, loss and score without each expert, and what each costs.

    A stopped run goes on with the same command. Several ranks: torchrun --nproc-per-node N -m tove_lvlm.cli usage ...
    """
    from .. import dist
    from ..checkpoints import open_checkpoint
    from ..storage import run_folder, save_json
    from ..surgery.probe_data import read_probe_data
    from ..surgery.usage import measure_usage

    questions = read_probe_data(data=data, image_folder=image_folder, images=images, limit=limit)
    dist.setup_process_group("gloo")  # the sums are small and on the CPU, wherever the model is
    output = output or Path("outputs/usage") / checkpoint.resolve().name
    state_file = output / "usage.partial.json"
    inputs = [checkpoint, *(path for path in (data, images) if path is not None)]
    with dist.entered_by_main(run_folder(output, inputs)):
        # stdout may be somebody's JSON, and DeepSpeed, which peft imports, prints there.
        with contextlib.redirect_stdout(sys.stderr), counted("batches", shown=dist.is_main()) as update:
            report = measure_usage(
                open_checkpoint(checkpoint),
                questions,
                batch_size=batch_size,
                device=choose_device(device),
                num_workers=workers,
                estimate=estimate,
                state_file=state_file,
                progress=update,
            )
        if not dist.is_main():
            return
        save_json(output / "usage.json", report)
        state_file.unlink(missing_ok=True)
        written = [output / "usage.json", *_plot(report, output / "usage")]
    if as_json:
        print(json.dumps(report))
        return
    use, cost = usage_tables(report)
    console.print(use)
    _print_quality(report)
    _print_ranking(report)
    console.print(cost)
    console.print(f"Cost of one image on {report['device']}, {report['dtype']}.", markup=False)
    _print_left_out(report)
    console.print("written: " + ", ".join(map(str, written)), markup=False, soft_wrap=True)


def usage_tables(report: dict[str, Any]) -> tuple[Table, Table]:
    """The report of `measure_usage` as two tables that fit 80 columns: who is used, and what each part costs.

    Args:
        report: Of rank 0, so that it has costs.
    """
    estimated = any(row["loss_estimate"] is not None for row in report["experts"].values())
    last = ("norm at answers", "loss (estimate)") if estimated else ("loss without", "score without")
    use = _table("expert", "gate mass", "first", "norm", *last)
    cost = _table("part", "ms", "GFLOPs", "parameters", "memory")
    for name, row in report["experts"].items():
        if row["detached"]:
            use.add_row(f"{name} (detached)", *["-"] * 5, style="dim")
            continue
        values = (_signed(row["loss_change"], "+.4f"), _signed(row["score_change"], "+.2%"))
        if estimated:
            values = (f"{row['answer_norm']:.3f}", _signed(row["loss_estimate"], "+.4f"))
        gate = (f"{row['gate_mass']:.3f}", f"{row['first_share']:.1%}", f"{row['relative_norm']:.3f}")
        use.add_row(name, *gate, *values)
        cost.add_row(name, *_cost_cells(row))
    cost.add_section()
    for name in ("clip", "tove_fusion", "tower"):
        cost.add_row(name, *_cost_cells(report[name]))
    return use, cost


def _table(first: str, *columns: str) -> Table:
    table = Table()
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _print_quality(report: dict[str, Any]) -> None:
    text = f"{report['num_images']} images"
    if report["quality"] is not None:
        all_experts, clip_only = report["quality"], report["quality_clip"]
        text += (
            f", {report['num_answers']} answers: loss {all_experts['loss']:.4f}, score {all_experts['score']:.2%}; "
            f"without any expert {clip_only['loss']:.4f}, {clip_only['score']:.2%}"
        )
    console.print(text + ".")


def _print_ranking(report: dict[str, Any]) -> None:
    by = {"loss_change": "the loss without each", "answer_norm": "their norm at the answers' tokens"}
    if report["ranked_by"] is not None and len(report["least_useful_first"]) > 1:
        names = ", ".join(report["least_useful_first"])
        console.print(f"Least useful first, by {by[report['ranked_by']]}: {names}.", markup=False, soft_wrap=True)
    elif report["ranked_by"] is None:
        console.print("Gate mass and norm alone do not say which expert matters: give --data with answers.")


def _print_left_out(report: dict[str, Any]) -> None:
    if report["num_text_only"]:
        console.print(f"Left out, because they have no image: {report['num_text_only']}.")
    if report["num_several_images"]:
        console.print(f"Left out, because they have several images: {report['num_several_images']}.")
    if report["num_broken"]:
        console.print(f"Left out, because they are broken: {report['num_broken']}.")
        for name, reason in report["broken"].items():
            console.print(f"  {name}: {reason}", markup=False, soft_wrap=True)


def _cost_cells(cost: dict[str, Any]) -> list[str]:
    return [
        f"{cost['ms']:.2f}",
        f"{cost['gflops']:.3g}",
        f"{cost['parameters'] / 1e6:.3g} M",
        f"{cost['memory_bytes'] / 2**20:.3g} MiB",
    ]


def _signed(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _plot(report: dict[str, Any], stem: Path) -> list[Path]:
    """A measurement of hours is not lost for want of a plotting library."""
    if all(row["detached"] for row in report["experts"].values()):
        return []
    from ..viz.usage import usage_plot

    try:
        return usage_plot(report, stem)
    except ImportError as error:
        print(f"no plot: {error}", file=sys.stderr)
        return []
