"""What more ranks bring to stage 2: measured on this machine, balanced by the real sampler, estimated on paper.

    python benchmarks/scaling.py                                  # all three
    python benchmarks/scaling.py --only balance estimate --between-gb-per-s 400

* `measured`: the miniature on one and two ranks by DeepSpeed's launcher, ZeRO-2 and ZeRO-3. On a CPU with gloo and
  shared cores; it says little about GPUs (`speed/ranks.py`).
* `balance`: LLaVA's modelled row lengths, dealt by the sampler of stage 2 over 8 to 64 ranks: how much longer the
  slowest rank computes than the mean one, and the share of padding (`speed/balance.py`). `fixed`: 128 rows a step
  over all ranks, as docs/several_machines.md asks; `growing`: 16 rows a rank.
* `estimate`: steps and images per second of a project on as many GPUs, from FLOPs and bytes that are counted and speeds
  that are assumed (`speed/estimate.py`); every assumption is an option and is written beside the result.

Written to benchmarks/results/scaling.json; a part that is not asked for stays as it was.
"""

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from speed import balance, estimate, ranks
from speed.lengths import sample_rows
from speed.made_by import made_by
from speed.world import SIZES

from tove_lvlm.storage import load_json, save_json

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "scaling.json"
PARTS = ("measured", "balance", "estimate")
ROWS_PER_STEP, ROWS_PER_RANK, MAX_TOKENS = 128, 16, 2048
SETTINGS = [("zero2", 1), ("zero2", 2), ("zero3", 1), ("zero3", 2)]


def main() -> int:
    """Measure, count and write."""
    arguments = parse_arguments()
    record = load_json(arguments.output) if arguments.output.is_file() else {}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    about = made_by(arguments)

    def keep(part: str, figures: dict[str, Any]) -> None:
        record[part] = about | figures
        save_json(arguments.output, record)
        print(f"{part}\n\n{TABLES[part](record[part])}\n", flush=True)

    if {"balance", "estimate"} & set(arguments.only):
        counted = estimate.count(arguments.project)
        dealt = deal_all(arguments, counted.image_tokens)
        if "balance" in arguments.only:
            keep("balance", {"settings": {key: balance.balance(one) for key, one in dealt.items()}})
        if "estimate" in arguments.only:
            keep("estimate", estimates(arguments, counted, dealt))
    if "measured" in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            runs = (arguments.batch_size, arguments.steps, arguments.rounds)
            settings = ranks.measure(Path(folder), arguments.size, SETTINGS, *runs)
        keep("measured", {"size": arguments.size, "settings": settings})
    print(f"written: {arguments.output}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--size", default="miniature", choices=SIZES, help="of the measured runs")
    parser.add_argument("--batch-size", type=int, default=8, help="rows of a rank and step, measured")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a run, after one to warm up")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 16, 32, 64], help="of balance and estimate")
    parser.add_argument("--rows", type=int, default=102_400, help="of balance and estimate")
    parser.add_argument("--project", type=Path, default=ROOT / "projects" / "tove_vicuna_7b" / "finetune.yaml")
    for field in dataclasses.fields(estimate.Assumed):
        flag, kind = f"--{field.name.replace('_', '-')}", type(field.default)
        parser.add_argument(flag, type=kind, default=field.default, help=estimate.SOURCES[field.name])
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.set_defaults(device="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def deal_all(arguments: argparse.Namespace, image_tokens: int) -> dict[str, balance.Dealt]:
    """`fixed, RANKS` and `growing, RANKS`.

    Args:
        arguments: The command line.
        image_tokens: Of one image.
    """
    rows = sample_rows(arguments.rows, MAX_TOKENS, seed=0)
    batches = {
        f"{kind}, {number}": (number, batch_size)
        for kind, of in (("fixed", lambda number: ROWS_PER_STEP // number), ("growing", lambda _: ROWS_PER_RANK))
        for number in arguments.ranks
        if (batch_size := of(number))
    }
    return {key: balance.deal(rows, *sizes, image_tokens, MAX_TOKENS) for key, sizes in batches.items()}


def estimates(
    arguments: argparse.Namespace, counted: estimate.Counted, dealt: dict[str, balance.Dealt]
) -> dict[str, Any]:
    """Every way of dealing under ZeRO-2 and ZeRO-3, and padded under ZeRO-2.

    Args:
        arguments: The command line.
        counted: The project.
        dealt: Of `deal_all`.
    """
    fields = dataclasses.fields(estimate.Assumed)
    assumed = estimate.Assumed(**{field.name: getattr(arguments, field.name) for field in fields})
    rows = {}
    for key, one in dealt.items():
        kind, number = key.split(", ")
        of_step = ROWS_PER_STEP if kind == "fixed" else ROWS_PER_RANK * int(number)
        for name, zero, padded in (("zero2", 2, False), ("zero3", 3, False), ("zero2, padded", 2, True)):
            rows[f"{key}, {name}"] = estimate.estimate(counted, one, assumed, int(number), of_step, zero, padded)
    project = arguments.project.resolve()
    name = project.relative_to(ROOT.resolve()) if project.is_relative_to(ROOT.resolve()) else project.name
    return {"project": str(name), **estimate.written(counted, assumed), "settings": rows}


def measured_table(part: dict[str, Any]) -> str:
    """Markdown."""
    head = "| ZeRO, ranks | rows a step | s a step, wall | CPU s of the busiest rank | rows/s | slowest / mean tokens |"
    lines = [head, "|---" * 6 + "|"]
    for name, row in part["settings"].items():
        spans = [row["wall_s"], row["cpu_s_of_the_busiest_rank"], row["rows_per_s"]]
        cells = [f"{span['median']:.3g} ({span['low']:.3g} to {span['high']:.3g})" for span in spans]
        lines.append(
            f"| {name} | {row['rows_per_step']} | {' | '.join(cells)} | {row['slowest_over_mean_tokens']:.3f} |"
        )
    return "\n".join(lines)


def balance_table(part: dict[str, Any]) -> str:
    """Markdown."""
    lines = ["| rows, ranks | tokens a rank | slowest / mean | padded: slowest / mean | padding |", "|---" * 5 + "|"]
    for name, row in part["settings"].items():
        figures = f"{row['slowest_over_mean']:.3f} | {row['padded_slowest_over_mean']:.3f}"
        lines.append(f"| {name} | {row['tokens_per_rank_and_step']:.0f} | {figures} | {row['padding_share']:.1%} |")
    return "\n".join(lines)


def estimate_table(part: dict[str, Any]) -> str:
    """Markdown; a range is from nothing of the communication hidden to all of it."""
    heads = ["rows, GPUs, ZeRO", "GB sent", "computing, s", "slowest / mean", "sending, s"]
    heads += ["steps/s", "images/s", "efficiency"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, row in part["settings"].items():
        cells = [f"{row['gb_sent_per_rank']:.1f}", f"{row['compute_s']:.2f}", f"{row['slowest_over_mean_flops']:.3f}"]
        cells += [f"{row['communication_s']:.2f}"]
        spans = (("steps_per_s", ".3g"), ("images_per_s", ".3g"), ("efficiency", ".0%"))
        cells += [f"{row[span]['low']:{form}} to {row[span]['high']:{form}}" for span, form in spans]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


TABLES = {"measured": measured_table, "balance": balance_table, "estimate": estimate_table}


if __name__ == "__main__":
    sys.exit(main())
