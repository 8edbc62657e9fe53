"""A tower's time over the number of experts and the batch: over CLIP alone, over its backbones, gate or concatenation.

    python benchmarks/tower_scaling.py --threads 1 --clock cpu       # six small experts, on this CPU
    python benchmarks/tower_scaling.py --tower projects/towers/clip_l336_five_experts.yaml --device cuda \
        --dtype bfloat16 --batch-sizes 1 8 32

Random weights. For each K the tower has the first K experts of the YAML, once with ToVE's gate (`fusion.kind: gated`)
and once with the experts' channels beside CLIP's (`concat`, as in Eagle); all towers share one CLIP and one network for
each expert, which are timed alone too. A round runs everything once, the next one in the opposite order; a ratio is the
median over the rounds, and `of_lowest` that of each call's fastest round, which other work moves less. What a
concatenation leaves to the projector, a wider input, is not in these times: `width` says how wide. The result goes to
benchmarks/results/tower_scaling.json, one entry for each machine, tower and dtype.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
from speed.made_by import made_by
from speed.rounds import CLOCKS, clock_named, in_turns, spread
from tower_overhead import backbone_calls, make_pixels

from tove_lvlm import ToVEVisionModel
from tove_lvlm.config.tower import FUSION_KINDS, TowerConfig
from tove_lvlm.storage import load_json, save_json
from tove_lvlm.tower.build import vision_config
from tove_lvlm.tower.cost import tower_sizes
from tove_lvlm.tower.from_yaml import read_tower_yaml

RESULTS = Path(__file__).parent / "results" / "tower_scaling.json"
SMALL = Path(__file__).parent / "speed" / "six_small_experts.yaml"


def main() -> int:
    """Measure and write."""
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    entry = made_by(arguments, "dtype", "clock", "rounds") | {"tower": Path(arguments.tower).name}
    towers = make_towers(read_tower_yaml(str(arguments.tower)))
    entry["counted"] = {name: counted(tower) for name, tower in towers.items()}
    entry["batches"] = {}
    for tower in towers.values():
        tower.to(arguments.device, getattr(torch, arguments.dtype))
    key = f"{Path(arguments.tower).stem} {entry['hardware']} {arguments.dtype}"
    earlier = load_json(arguments.output) if arguments.output.is_file() else {}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    for batch_size in arguments.batch_sizes:
        entry["batches"][str(batch_size)] = measure(towers, batch_size, arguments)
        save_json(arguments.output, earlier | {key: entry})
        print(f"batch {batch_size}\n\n{table(entry, str(batch_size))}\n", flush=True)
    print(f"{key}; written: {arguments.output}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tower", default=str(SMALL), help="YAML; K goes up to the number of its experts")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, after one to warm up")
    parser.add_argument("--threads", type=int, default=0, help="of a CPU; torch's own choice when left out")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of a CPU that others use too")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def make_towers(described: TowerConfig) -> dict[str, ToVEVisionModel]:
    """`gated K` and `concat K` for each K from all experts down to one, with the same backbones in all.

    Args:
        described: A tower's YAML.
    """
    towers: dict[str, ToVEVisionModel] = {}
    for num_experts in range(len(described.experts), 0, -1):
        for kind in FUSION_KINDS:
            fusion = dataclasses.replace(described.fusion, kind=kind)
            first = dataclasses.replace(described, experts=described.experts[:num_experts], fusion=fusion)
            tower = ToVEVisionModel(vision_config(first)).eval()
            if towers:
                whole = next(iter(towers.values()))
                tower.clip = whole.clip
                for name in tower.expert_names:
                    tower.experts[name] = whole.experts[name]
            towers[f"{kind} {num_experts}"] = tower
    return towers


def counted(tower: ToVEVisionModel) -> dict[str, Any]:
    """What is known of a tower without a clock: FLOPs of an image, width of its tokens, trainable parameters."""
    sizes = tower_sizes(tower)
    return {
        "gflops_over_clip": round(sizes["tower"].gflops / sizes["clip"].gflops, 4),
        "fusion_gflops": round(sizes["tove_fusion"].gflops, 4),
        "fusion_parameters": sizes["tove_fusion"].parameters,
        "width": tower.config.hidden_size,
    }


@torch.no_grad()
def measure(towers: dict[str, ToVEVisionModel], batch_size: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds per image of every tower and backbone, and each tower's ratios.

    Args:
        towers: Of `make_towers`, the first one with all experts.
        batch_size: Images of a forward.
        arguments: The command line.
    """
    whole = next(iter(towers.values()))
    pixels_B3HW = make_pixels(whole, batch_size)
    backbones = backbone_calls(whole, pixels_B3HW)
    calls = backbones | {name: lambda tower=tower: tower(pixels_B3HW) for name, tower in towers.items()}
    elapsed = in_turns(calls, clock_named(arguments.clock, pixels_B3HW.device), arguments.rounds)
    turns = range(arguments.rounds)
    lowest = {name: min(times) for name, times in elapsed.items()}
    found: dict[str, Any] = {
        "ms_per_image": {name: spread([ms / batch_size for ms in times], 3) for name, times in elapsed.items()},
        "over_clip": {},
        "over_backbones": {},
    }
    for name, tower in towers.items():
        parts = ["clip", *tower.expert_names]
        for figure, below in (("over_clip", ["clip"]), ("over_backbones", parts)):
            ratios = [elapsed[name][turn] / sum(elapsed[part][turn] for part in below) for turn in turns]
            of_lowest = lowest[name] / sum(lowest[part] for part in below)
            found[figure][name] = spread(ratios) | {"of_lowest": round(of_lowest, 4)}
    return found


def table(entry: dict[str, Any], batch_size: str) -> str:
    """Markdown: a row for each K, the gate beside the concatenation; `of_lowest`, then the median with its range.

    Args:
        entry: What is written.
        batch_size: A key of its `batches`.
    """
    measured, counts = entry["batches"][batch_size], entry["counted"]
    ks = sorted({int(name.split()[1]) for name in counts})
    heads = ["K", "FLOPs over CLIP"]
    heads += [f"{kind}: {figure}" for figure in ("over CLIP", "over its backbones") for kind in FUSION_KINDS]
    heads += ["width of concat", "ms per image, gated"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for k in ks:
        cells = [str(k), f"{counts[f'gated {k}']['gflops_over_clip']:.2f}"]
        for figure in ("over_clip", "over_backbones"):
            ratios = [measured[figure][f"{kind} {k}"] for kind in FUSION_KINDS]
            cells += [
                f"{ratio['of_lowest']:.2f}; {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
                for ratio in ratios
            ]
        cells += [str(counts[f"concat {k}"]["width"]), f"{measured['ms_per_image'][f'gated {k}']['median']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
