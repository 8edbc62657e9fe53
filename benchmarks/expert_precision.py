"""What bfloat16 costs each expert of a tower: its grid against its own in float32, and the bound of its family.

    python benchmarks/expert_precision.py                                     # the miniature's, on held-out scenes
    python benchmarks/expert_precision.py --tower TOWER.yaml --images FOLDER --device cuda

The weights are those of the tower's YAML, so that a catalogue's expert is checked once its weights are there. Pixels
are the tower's, resampled to each expert's size. Figures as in `tove_lvlm.experts.precision`; the result goes to
benchmarks/results/expert_precision.json with commit and hardware, one entry for each setting. The exit code is 1 where
an expert is beyond its bound: its weights should then stay in float32, or the expert out of the tower.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from speed.made_by import made_by

from tove_lvlm import ToVEImageProcessor, ToVEVisionModel, build_tower
from tove_lvlm.data.images import to_pixels
from tove_lvlm.experts.precision import deviation_in
from tove_lvlm.experts.preprocess import prepare
from tove_lvlm.storage import load_json, save_json
from tove_lvlm.world.render import render
from tove_lvlm.world.scene import sample, split_seeds

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "expert_precision.json"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def main() -> int:
    """Measure, print and write."""
    arguments = parse_arguments()
    tower = build_tower(arguments.tower).eval().to(arguments.device)
    pixels_B3HW = torch.stack([pixels for pixels in pictures(tower, arguments)]).to(arguments.device)
    rows = measure(tower, pixels_B3HW, getattr(torch, arguments.dtype))
    about = {"tower": tower_name(arguments.tower), "images": len(pixels_B3HW)}
    entry = made_by(arguments, "dtype") | about | {"experts": rows}
    earlier = load_json(arguments.output) if arguments.output.is_file() else {}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    save_json(arguments.output, earlier | {f"{about['tower']} {entry['hardware']} {arguments.dtype}": entry})
    for name, row in rows.items():
        print(f"{name:20s} {json.dumps(row)}")
    print(f"written: {arguments.output}")
    return 0 if all(row["within"] for row in rows.values()) else 1


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tower", default=str(ROOT / "projects" / "miniature" / "tower.yaml"))
    parser.add_argument("--images", type=Path, help="folder of pictures; held-out scenes of the miniature without it")
    parser.add_argument("--num-images", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def tower_name(path: str) -> str:
    """Of a YAML: `miniature/tower`."""
    return str(Path(path).resolve().parent.name + "/" + Path(path).stem)


def pictures(tower: ToVEVisionModel, arguments: argparse.Namespace) -> Iterator[torch.Tensor]:
    """(3, S, S) as the tower takes them."""
    processor = ToVEImageProcessor.for_tower(tower.config)
    if arguments.images is None:
        scenes = render(sample(split_seeds("heldout", arguments.num_images)))
        images = [Image.fromarray(scene) for scene in scenes.rgb]
    else:
        files = sorted(path for path in arguments.images.iterdir() if path.suffix.lower() in SUFFIXES)
        images = [Image.open(path).convert("RGB") for path in files[: arguments.num_images]]
    yield from (to_pixels(image, processor, "pad") for image in images)


def measure(tower: ToVEVisionModel, pixels_B3HW: torch.Tensor, dtype: torch.dtype) -> dict[str, dict[str, Any]]:
    """Name -> figures, rounded, and whether they are within the family's bound."""
    rows = {}
    for name, expert in tower.experts.items():
        own_B3HW = prepare(pixels_B3HW, tower.preprocessing, expert.spec.preprocessing, tower.config.expert_resample)
        found = deviation_in(expert, own_B3HW, dtype)
        rows[name] = {key: round(value, 5) for key, value in found._asdict().items()}
        rows[name] |= {"bound": expert.bf16_bound, "within": found.of_spread <= expert.bf16_bound}
        rows[name] |= {"family": expert.spec.family, "output": expert.spec.output}
    return rows


if __name__ == "__main__":
    sys.exit(main())
