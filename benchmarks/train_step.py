"""What a training step of stage 2 costs against stock LLaVA: with ToVE, without, detached, and each key on and off.

    python benchmarks/train_step.py                      # the miniature and the middle size, on a CPU
    python benchmarks/train_step.py --sizes mid --rounds 5
    python benchmarks/train_step.py --sizes 7b --batch-size 16 --bf16    # needs a GPU of 80 GB

Every variant trains the same rows in the same batches, whose lengths are LLaVA's (`speed/lengths.py`), by LoRA under
ZeRO-2 on one rank. A round runs every variant once, in a process of its own; the next round goes the other way round.
A ratio is the median over the rounds of a variant's time over that of `stock`: transformers' Trainer with a plain CLIP
and padded batches. `cached` reads an expert cache that a run before the first round has filled. Time is the process's
CPU time on a CPU, so that other work on the machine shows less, and wall time on a GPU. On a CPU every variant has
glibc keep the memory that is freed, as a GPU's allocator does: by its own rules each large tensor is new pages from the
kernel, which took a third of the time, in one variant more than in another by chance. `peak_memory_gb` is with it.

`mfu` is the model FLOPs of a step over its time and over the rate of one large matrix product on the same device in the
same dtype, measured before each round. Model FLOPs are those that no choice of ours changes: the tower's forward, and a
forward and a backward pass of the language model without what is computed again or is padding.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from speed.run import VARIANTS
from speed.world import SIZES, write_world

from tove_lvlm.provenance import commit, hardware, versions
from tove_lvlm.storage import load_json, save_json

RESULTS = Path(__file__).parent / "results" / "train_step.json"
RUN = Path(__file__).parent / "speed" / "run.py"
CLOCKS = {"cpu_s": time.process_time, "wall_s": time.perf_counter}
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**33), "MALLOC_TRIM_THRESHOLD_": str(2**36)}
PACKAGES = ("tove-lvlm", "torch", "transformers", "peft", "deepspeed")


def main() -> int:
    """Time and write."""
    arguments = parse_arguments()
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    earlier = load_json(arguments.output) if arguments.output.is_file() else {}
    record = {"ratios": {}, "sizes": {}, **earlier}
    record |= {"command": " ".join(["python", *sys.argv]), "commit": commit(), "hardware": hardware(device)}
    record |= {"clock": "wall_s" if device == "cuda" else "cpu_s", "versions": versions(PACKAGES)}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            for measured in measure(Path(folder), size, arguments, record["clock"]):
                record["sizes"][size] = measured | {name: record[name] for name in ("commit", "hardware")}
                record["ratios"][size] = measured["ratios"]
                save_json(arguments.output, record)
                print(table(size, measured), flush=True)
    print(f"written: {arguments.output}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=["miniature", "mid"], choices=SIZES)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="timed steps of a run, after one to warm up")
    parser.add_argument("--batch-size", type=int, default=16, help="rows of a step")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def measure(folder: Path, size: str, arguments: argparse.Namespace, clock: str) -> Iterator[dict[str, Any]]:
    """What is known of a size after each round.

    Args:
        folder: For its files.
        size: Of `SIZES`.
        arguments: The command line.
        clock: Which of a step's times is compared.
    """
    run = write_world(folder, size, arguments.steps + 1, arguments.batch_size)
    run["train"]["bf16"] = arguments.bf16
    rounds, rates, flops = [], [], tower_flops(run)
    if "tove, cached" in arguments.variants:
        time_run(folder, run, "tove, cached")
    for number in range(arguments.rounds):
        order = arguments.variants if number % 2 == 0 else arguments.variants[::-1]
        rates.append(matmul_gflops(clock, arguments.bf16))
        rounds.append({variant: time_run(folder, run, variant) for variant in order})
        print(f"{size}: round {number + 1} of {arguments.rounds}", flush=True)
        measured = summary(rounds, clock) | {"gflops": flops, "matmul_gflops_per_s": rates}
        measured["share_of_llm"] = tower_shares(flops, rounds[0])
        for variant, row in measured["rows"].items():
            computed = model_gflops_per_s(variant, row, flops)
            row["mfu"] = None if computed is None else computed / statistics.median(rates)
        yield measured


def summary(rounds: list[dict[str, Any]], clock: str) -> dict[str, Any]:
    """Ratios over `stock`, and the rows of the table.

    Args:
        rounds: Variant -> its run, of each round.
        clock: Which of a step's times is compared.
    """
    seconds = {variant: [sum(s[clock] for s in one[variant]["steps"]) for one in rounds] for variant in rounds[0]}
    over_stock = {
        variant: [mine / stock for mine, stock in zip(values, seconds["stock"], strict=True)]
        for variant, values in seconds.items()
    }
    rows = {}
    for variant in rounds[0]:
        steps, best = rounds[0][variant]["steps"], statistics.median(seconds[variant])
        rows[variant] = {
            "seconds": best / len(steps),
            "tokens_per_s": sum(step["tokens"] for step in steps) / best,
            "images_per_s": sum(step["images"] for step in steps) / best,
            "padding": 1 - sum(step["tokens"] for step in steps) / sum(step["places"] for step in steps),
            "peak_memory_gb": max(one[variant]["peak_memory_gb"] for one in rounds),
        }
    ratios = {variant: statistics.median(values) for variant, values in over_stock.items()}
    ranges = {variant: [min(values), max(values)] for variant, values in over_stock.items()}
    return {"ratios": ratios, "ranges": ranges, "rows": rows, "rounds": rounds}


def time_run(folder: Path, run: dict[str, Any], variant: str) -> dict[str, Any]:
    """One variant once, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        cfg_path = Path(output) / "run.yaml"
        train = run["train"] | {"output_dir": str(Path(output) / "out")}
        cfg_path.write_text(yaml.safe_dump(run | {"train": train}), encoding="utf-8")
        command = [sys.executable, str(RUN), str(cfg_path), variant]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ | KEPT_MEMORY)
    if done.returncode:
        raise SystemExit(f"{variant} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def tower_flops(run: dict[str, Any]) -> dict[str, float]:
    """10^9 FLOPs of a forward pass: an image through CLIP and through the whole tower, a token through the layers."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tove_lvlm import ToVEVisionModel
    from tove_lvlm.config.sources import resolve_source
    from tove_lvlm.tower.build import tower_config_from_yaml
    from tove_lvlm.tower.cost import tower_sizes

    with torch.device("meta"):
        sizes = tower_sizes(ToVEVisionModel(tower_config_from_yaml(run["model"]["tower"])))
        llm = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(resolve_source(run["model"]["llm"])))
    token = 2 * sum(parameter.numel() for parameter in llm.model.layers.parameters()) / 1e9
    return {"clip_image": sizes["clip"].gflops, "tower_image": sizes["tower"].gflops, "llm_token": token}


def matmul_gflops(clock: str, bf16: bool) -> float:
    """10^9 FLOPs per second of a product of 2048 x 4096 and 4096 x 4096, one thread of a CPU or a GPU; best of five."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    left = torch.randn(2048, 4096, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    right, now, seconds = left.new_ones(4096, 4096), CLOCKS[clock], []
    for _ in range(6):
        start = now()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(now() - start)
    return 2 * 2048 * 4096 * 4096 / 1e9 / min(seconds[1:])


def model_gflops_per_s(variant: str, row: dict[str, Any], gflops: dict[str, float]) -> float | None:
    """What `mfu` counts, of a row of the table.

    Args:
        variant: Of `VARIANTS`.
        row: Its tokens and images per second.
        gflops: Of `tower_flops`.

    Returns:
        None where not all of the tower is run.
    """
    if variant in ("detached", "tove, cached"):
        return None
    image = gflops["clip_image" if variant in ("stock", "clip") else "tower_image"]
    return 2 * gflops["llm_token"] * row["tokens_per_s"] + image * row["images_per_s"]


def tower_shares(gflops: dict[str, float], variants: dict[str, Any]) -> dict[str, float]:
    """CLIP's and the whole tower's forward over the language model's step, which computes each token three times.

    Three: forward, again for the gradient checkpoint, and the gradient of what goes in (its own weights are frozen).
    """
    steps = next(iter(variants.values()))["steps"]
    llm = 3 * gflops["llm_token"] * sum(step["tokens"] for step in steps)
    return {name: sum(step["images"] for step in steps) * gflops[f"{name}_image"] / llm for name in ("clip", "tower")}


def table(size: str, measured: dict[str, Any]) -> str:
    """Markdown."""
    head = f"| {size} | seconds a step | over stock | padding | tokens/s | MFU | peak memory, GB |"
    lines = [head, "|---" * 7 + "|"]
    for variant, row in measured["rows"].items():
        mfu = "-" if row["mfu"] is None else f"{row['mfu']:.0%}"
        lines.append(
            f"| {variant} | {row['seconds']:.2f} | {measured['ratios'][variant]:.3f} | {row['padding']:.0%} | "
            f"{row['tokens_per_s']:.0f} | {mfu} | {row['peak_memory_gb']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
