"""What a tower takes beside its backbones: its time over the sum of their own forward times, measured in one run.

    python benchmarks/tower_overhead.py                                        # the base-size tower, on this CPU
    python benchmarks/tower_overhead.py --device cuda --dtype bfloat16 --batch-size 32
    python benchmarks/tower_overhead.py --device cuda --dtype bfloat16 --batch-size 32 --streams --compile

Over the number of experts, and beside a concatenation: tower_scaling.py.

Random weights. Every round times the whole tower (preparing the experts' pixels, gate, alignment and transfer
included), and CLIP and each expert alone on pixels that are prepared already, in the same dtype and batch; the next
round goes the other way round. The ratio is the median over the rounds of whole / sum; the aim is at most 1.05. The
result goes to benchmarks/results/tower_overhead.json with commit and hardware, one entry for each setting.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from speed.made_by import made_by
from speed.rounds import CLOCKS, clock_named, in_turns

from tove_lvlm import ToVEVisionModel
from tove_lvlm.experts.preprocess import Preprocessing, prepare
from tove_lvlm.storage import load_json, save_json
from tove_lvlm.tower.build import tower_config_from_yaml

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "tower_overhead.json"
AIM = 1.05


def main() -> int:
    """Measure and write."""
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    tower = ToVEVisionModel(tower_config_from_yaml(arguments.tower)).eval()
    tower = tower.to(arguments.device, getattr(torch, arguments.dtype))
    pixels_B3HW = make_pixels(tower, arguments.batch_size)
    entry = measure(tower, pixels_B3HW, arguments)
    if arguments.streams or arguments.compile:
        entry["variant"] = vary(tower, pixels_B3HW, arguments)
    entry = made_by(arguments, "dtype", "clock", "batch_size", "rounds") | {"tower": Path(arguments.tower).name} | entry
    key = f"{Path(arguments.tower).stem} {entry['hardware']} {arguments.dtype} batch {arguments.batch_size}"
    earlier = load_json(arguments.output) if arguments.output.is_file() else {}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    save_json(arguments.output, earlier | {key: entry})
    print(json.dumps(entry, indent=2))
    print(f"{key}: ratio {entry['ratio']:.3f} (aim: at most {AIM}); written: {arguments.output}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tower", default=str(ROOT / "projects" / "towers" / "clip_b16_base.yaml"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds, after one to warm up")
    parser.add_argument("--threads", type=int, default=0, help="of a CPU; torch's own choice when left out")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of a CPU that others use too")
    parser.add_argument("--streams", action="store_true", help="also with each expert on its own CUDA stream")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def make_pixels(tower: ToVEVisionModel, batch_size: int) -> torch.Tensor:
    """Noise as a host would give it."""
    size, like = tower.config.image_size, next(tower.parameters())
    return torch.randn(batch_size, 3, size, size, generator=torch.Generator().manual_seed(0)).to(like)


def backbone_calls(tower: ToVEVisionModel, pixels_B3HW: torch.Tensor) -> dict[str, Callable[[], object]]:
    """CLIP and each expert, called as the tower calls them, on what they want to see."""
    config, source = tower.config, preprocessing_of(tower)
    clip_B3HW = prepare(pixels_B3HW, source, source._replace(size=config.clip_config["image_size"]))
    calls = {"clip": lambda: tower.clip(clip_B3HW, stop_at=config.select_layer)}
    for name, expert in tower.experts.items():
        own_B3HW = prepare(pixels_B3HW, source, expert.spec.preprocessing)
        calls[name] = lambda expert=expert, own_B3HW=own_B3HW: expert(own_B3HW)
    return calls


def preprocessing_of(tower: ToVEVisionModel) -> Preprocessing:
    """The tower's own input."""
    config = tower.config
    return Preprocessing(config.image_size, tuple(config.image_mean), tuple(config.image_std))


@torch.no_grad()
def measure(tower: ToVEVisionModel, pixels_B3HW: torch.Tensor, arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds per image of the whole and of each backbone, and the ratio of whole to sum."""
    calls = {"tower": lambda: tower(pixels_B3HW), **backbone_calls(tower, pixels_B3HW)}
    rounds, images = arguments.rounds, len(pixels_B3HW)
    elapsed = in_turns(calls, clock_named(arguments.clock, pixels_B3HW.device), rounds)
    parts = [name for name in calls if name != "tower"]
    ratios = [elapsed["tower"][number] / sum(elapsed[name][number] for name in parts) for number in range(rounds)]
    medians = {name: round(statistics.median(times) / images, 3) for name, times in elapsed.items()}
    return {
        "ratio": round(statistics.median(ratios), 4),
        "ratio_of_medians": round(medians["tower"] / sum(medians[name] for name in parts), 4),
        "ratio_range": [round(min(ratios), 4), round(max(ratios), 4)],
        "ms_per_image": medians,
    }


@torch.no_grad()
def vary(tower: ToVEVisionModel, pixels_B3HW: torch.Tensor, arguments: argparse.Namespace) -> dict[str, Any]:
    """The tower again with streams or compiled, and how far its tokens are from the plain ones."""
    plain_BND = tower(pixels_B3HW).last_hidden_state.float()
    if arguments.compile:
        tower.compile_experts()
    tower.experts.streams = arguments.streams
    grids = tower.encode_frozen(pixels_B3HW).grids
    found_BND = tower(pixels_B3HW).last_hidden_state.float()
    return {
        "streams": arguments.streams,
        "compile": arguments.compile,
        "largest_difference": (found_BND - plain_BND).abs().max().item(),
        "finite": all(bool(grid.isfinite().all()) for grid in grids.values()),
        **measure(tower, pixels_B3HW, arguments),
    }


if __name__ == "__main__":
    sys.exit(main())
