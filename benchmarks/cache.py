"""What the expert cache costs and saves: features computed against read, bytes, errors; merging's own cache before it.

    python benchmarks/cache.py                                   # the miniature's tower and a base-size one, this CPU
    python benchmarks/cache.py --threads 1 --clock cpu           # on a CPU that others use too
    python benchmarks/cache.py --device cuda --dtype bfloat16 --batch-size 16 --tower projects/towers/clip_b16_base.yaml

Towers have random weights where theirs are not shipped, and random images: no figure depends on what is seen. For each
tower, in milliseconds per image, medians over rounds:

* `compute`: CLIP and all experts; `fuse`: what follows in any case (gate and transfers);
* `read`: what stands in for `compute` with a full cache, of which `hash` is the image's key; `write`: what an empty
  cache adds to it;
* `file_read`, `file_write`: merging's own cache of before, one safetensors file with t_fuse for each image.

Files are read from memory (the page cache), after one pass over them; from a disk, add the bytes over its speed.
`planned` is arithmetic: bytes of an image of the 7B project's tower. Written to benchmarks/results/cache.json.
"""

import argparse
import hashlib
import itertools
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from speed.made_by import made_by
from speed.rounds import CLOCKS, clock_named, in_turns

from tove_lvlm import ToVEVisionModel, build_tower
from tove_lvlm.experts import describe
from tove_lvlm.feature_cache import CacheFolder, FeatureCache
from tove_lvlm.feature_cache.codec import DTYPES, Codec
from tove_lvlm.feature_cache.identity import image_keys
from tove_lvlm.storage import WeightsError, atomic_file, load_json, save_json
from tove_lvlm.tower.build import tower_config_from_yaml

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "cache.json"
TOWERS = ("projects/miniature/tower.yaml", "projects/towers/clip_b16_base.yaml")
PLANNED = "projects/towers/clip_l336_five_experts.yaml"
IMAGES = {"stage 1": 558_128, "stage 2": 665_298}
"""LLaVA-1.5's samples; those of text alone, a sixteenth of stage 2, have no image."""


def main() -> int:
    """Measure and write."""
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    record = load_json(arguments.output) if arguments.output.is_file() else {}
    record["planned"] = planned(ROOT / PLANNED)
    for path in arguments.tower or [ROOT / tower for tower in TOWERS]:
        tower = open_tower(Path(path)).to(arguments.device, getattr(torch, arguments.dtype))
        entry = made_by(arguments, "dtype", "clock", "batch_size", "rounds") | measure(tower, arguments)
        entry["tower"] = "miniature" if "miniature" in str(path) else Path(path).stem
        record[f"{entry['tower']} {entry['hardware']} {arguments.dtype} batch {arguments.batch_size}"] = entry
        print(json.dumps(entry, indent=2), flush=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    save_json(arguments.output, record)
    print(f"written: {arguments.output}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tower", action="append", help="YAML; may be repeated")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=4, help="different ones, in each round")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, after one to warm up")
    parser.add_argument("--threads", type=int, default=0, help="of a CPU; torch's own choice when left out")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of a CPU that others use too")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def open_tower(path: Path) -> ToVEVisionModel:
    """The tower, with its weights where they are here, else random; its fusion random, as if it were trained."""
    torch.manual_seed(0)
    try:
        tower = build_tower(path)
    except WeightsError:
        tower = ToVEVisionModel(tower_config_from_yaml(path))
    with torch.no_grad():
        for parameter in tower.tove_fusion.parameters():
            parameter.normal_(std=0.02 if parameter.ndim < 2 else parameter[0].numel() ** -0.5)
    return tower.eval()


@torch.no_grad()
def measure(tower: ToVEVisionModel, arguments: argparse.Namespace) -> dict[str, Any]:
    """Times, bytes and errors of one tower."""
    size, generator = tower.config.image_size, torch.Generator().manual_seed(0)
    shape = (arguments.batch_size, 3, size, size)
    batches = [torch.randn(shape, generator=generator).to(tower.device, tower.dtype) for _ in range(arguments.batches)]
    exact = [tower(batch).last_hidden_state.float() for batch in batches]
    frozen = tower.encode_frozen(batches[0])
    with tempfile.TemporaryDirectory() as place:
        steps: dict[str, Callable[[torch.Tensor], Any]] = {
            "compute": tower.encode_frozen,
            "fuse": lambda batch: tower.tove_fusion(*frozen),
            "hash": image_keys,
        }
        ms = timed(steps, batches, arguments)
        stored = {}
        for dtype in DTYPES:
            stored[dtype] = _with_cache(tower, dtype, batches, exact, Path(place), arguments)
        ms |= timed(_files(tower, batches, Path(place) / "files"), batches, arguments)
        file = next((Path(place) / "files").rglob("*.safetensors")).stat().st_size
    return {"ms_per_image": ms, "file_bytes": file, "stored_as": stored}


def _with_cache(
    tower: ToVEVisionModel,
    dtype: str,
    batches: list[torch.Tensor],
    exact: list[torch.Tensor],
    place: Path,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    full = FeatureCache(CacheFolder(place / dtype), tower, dtype)
    tower.feature_cache = full
    found = [tower(batch).last_hidden_state.float() for batch in batches]
    tower.feature_cache = None
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]
    frozen = tower.encode_frozen(batches[0])
    empty, number = FeatureCache(CacheFolder(place / f"{dtype}-write"), tower, dtype), itertools.count()
    empty._run = lambda *_: {"clip": frozen.t_clip_BND, **frozen.grids}

    def write(batch: torch.Tensor) -> None:
        empty(tower, batch + 1e-3 * (1 + next(number)))  # images that it has not seen

    ms = timed({"read": lambda batch: full(tower, batch), "write": write}, batches, arguments)
    records = sum(store.codec.record_bytes for store in full._stores.values())
    return {f"{name}_ms": value for name, value in ms.items()} | {
        "bytes_per_image": records,
        "t_fuse_error": max(errors),
    }


def _files(
    tower: ToVEVisionModel, batches: list[torch.Tensor], folder: Path
) -> dict[str, Callable[[torch.Tensor], Any]]:
    """Merging's cache of before: the image's own file is hashed, then a file is read or written for it."""
    image = bytes(20_000 if tower.config.image_size < 200 else 100_000)
    outputs = {batch.data_ptr(): tower(batch).hidden_states for batch in batches}

    def paths(batch: torch.Tensor) -> list[Path]:
        named = [folder / f"{batch.data_ptr()}" / f"{row}.safetensors" for row in range(len(batch))]
        return [path for path in named if hashlib.sha256(image).hexdigest()]

    def write(batch: torch.Tensor) -> None:
        t_clip_BND, t_fuse_BND = outputs[batch.data_ptr()]
        start_B = (t_clip_BND - t_fuse_BND).square().sum((1, 2))
        for row, path in enumerate(paths(batch)):
            with atomic_file(path, flush=False) as temporary:
                save_file({"t_fuse": t_fuse_BND[row].cpu().clone(), "start": start_B[row].cpu().clone()}, temporary)

    def read(batch: torch.Tensor) -> torch.Tensor:
        return torch.stack([load_file(path)["t_fuse"] for path in paths(batch)]).to(batch.device)

    for batch in batches:
        write(batch)
    return {"file_read": read, "file_write": write}


def timed(
    steps: dict[str, Callable[[torch.Tensor], Any]], batches: list[torch.Tensor], arguments: argparse.Namespace
) -> dict[str, float]:
    """Milliseconds per image of each step; the steps take turns, and medians over the rounds are given."""
    calls = {name: lambda step=step: [step(batch) for batch in batches] for name, step in steps.items()}
    elapsed = in_turns(calls, clock_named(arguments.clock, batches[0].device), arguments.rounds)
    images = len(batches) * arguments.batch_size
    return {name: round(statistics.median(times) / images, 4) for name, times in elapsed.items()}


def planned(path: Path) -> dict[str, Any]:
    """Bytes of an image of a full-size tower, by part and dtype, and of LLaVA-1.5's two stages; nothing is run."""
    config = tower_config_from_yaml(path)
    shapes = {"clip": ((config.num_tokens, config.clip_config["hidden_size"]), -1)}
    shapes |= {spec.name: ((spec.channels, *spec.grid), 0) for spec in map(describe, config.experts)}
    parts = {name: math.prod(shape) for name, (shape, _) in shapes.items()}
    image = {dtype: sum(Codec(dtype, *kept).record_bytes for kept in shapes.values()) for dtype in DTYPES}
    tb = {dtype: {stage: round(size * num / 1e12, 2) for stage, num in IMAGES.items()} for dtype, size in image.items()}
    return {"tower": path.name, "values": parts, "bytes_per_image": image, "tb": tb}


if __name__ == "__main__":
    sys.exit(main())
