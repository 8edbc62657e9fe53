"""What the shipped towers cost: a table for the README, counted on the meta device and, where asked, measured.

    python benchmarks/cost_table.py                                                   # counted only: a minute
    python benchmarks/cost_table.py --measure --batch-size 1 --repeats 2              # on this CPU: half an hour
    python benchmarks/cost_table.py --measure --device cuda --dtype bfloat16 --batch-size 32

Random weights. Every machine adds its column to benchmarks/results/tower_costs.json, which keeps the others' where the
tower's figures are still the same; the table is printed and written beside it as tower_costs.md.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from tove_lvlm.config import ConfigError
from tove_lvlm.provenance import commit, hardware
from tove_lvlm.storage import atomic_file, load_json, save_json
from tove_lvlm.tower.inventory import TimingConfig, tower_inventory

ROOT = Path(__file__).parent.parent
TOWERS = ROOT / "projects" / "towers"
RESULTS = Path(__file__).parent / "results" / "tower_costs.json"
H200 = "NVIDIA H200"


def main() -> int:
    """Count, measure, write."""
    arguments = parse_arguments()
    earlier = load_json(arguments.output) if arguments.output.is_file() else {"towers": {}, "runs": {}}
    towers, runs, failed = dict(earlier["towers"]), dict(earlier["runs"]), False
    setting, column = None, None
    if arguments.measure:
        if arguments.threads:
            torch.set_num_threads(arguments.threads)
        setting = TimingConfig(
            device=arguments.device,
            dtype=arguments.dtype,
            batch_size=arguments.batch_size,
            repeats=arguments.repeats,
        )
        column = hardware(arguments.device)
        runs[column] = about(arguments)
    for path in arguments.towers:
        try:
            report = tower_inventory(path, measure=setting)
        except (ConfigError, ImportError) as error:
            print(f"{path.name}: left out: {error}", file=sys.stderr)
            failed = True
            continue
        towers[path.stem] = row_of(report, towers.get(path.stem, {}), column)
        print(f"{path.name}: {report['total']}", flush=True)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        save_json(arguments.output, {"towers": towers, "runs": runs})
    text = markdown(towers, runs)
    with atomic_file(arguments.output.with_suffix(".md")) as writing:
        writing.write_text(text, encoding="utf-8")
    print(text)
    return int(failed)


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--towers", type=Path, nargs="+", default=sorted(TOWERS.glob("*.yaml")))
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of a CPU; torch's own choice when left out")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def about(arguments: argparse.Namespace) -> dict[str, Any]:
    """How a column was made."""
    return {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "dtype": arguments.dtype,
        "batch_size": arguments.batch_size,
        "repeats": arguments.repeats,
    }


def row_of(report: dict[str, Any], before: dict[str, Any], column: str | None) -> dict[str, Any]:
    """A tower's figures, with the times that other machines measured of exactly this tower."""
    total = report["total"]
    row = {
        "experts": [part["name"] for part in report["parts"] if part["kind"] in ("embedding", "low_level")],
        "visual_tokens": report["visual_tokens"],
        "parameters": total["parameters"],
        "gflops": total["gflops"],
        "bf16_bytes": total["bf16_bytes"],
        "times_clip": report["relative_to_clip"]["gflops"],
        "commercial": report["commercial"],
    }
    same = (before.get("parameters"), before.get("gflops")) == (row["parameters"], row["gflops"])
    times = dict(before.get("ms", {})) if same else {}
    if column is not None:
        times[column] = {
            "tower": total["ms"],
            "parts": {part["name"]: part["ms"] for part in report["parts"] if part["ms"] is not None},
        }
    return row | {"ms": times}


def markdown(towers: dict[str, Any], runs: dict[str, Any]) -> str:
    """The table, one column of times for each machine and one for an H200 whether it was at hand or not."""
    columns = [*(name for name in runs if H200 not in name), *([name for name in runs if H200 in name] or [H200])]
    heads = ["tower", "experts", "tokens", "parameters", "GFLOPs", "x CLIP", "bf16 memory", "commercial use"]
    heads += [f"ms on {name}" for name in columns]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, row in sorted(towers.items(), key=lambda item: item[1]["gflops"]):
        cells = [f"`{name}`", ", ".join(row["experts"]), str(row["visual_tokens"])]
        cells += [f"{row['parameters'] / 1e6:.0f} M", f"{row['gflops']:.0f}"]
        cells += [f"{row['times_clip']:.2f}", f"{row['bf16_bytes'] / 2**30:.2f} GiB", row["commercial"]]
        cells += [f"{row['ms'][column]['tower']:.1f}" if column in row["ms"] else "" for column in columns]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [
        f"ms on {name}: per image, {run['dtype']}, batch {run['batch_size']}, {run['threads']} CPU threads, torch "
        f"{run['torch']}, commit {run['commit']}: `{run['command']}`"
        for name, run in runs.items()
    ]
    return "\n".join([*lines, "", "GFLOPs are per image; x CLIP: as a multiple of CLIP's own.", *notes]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
