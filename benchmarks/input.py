"""Pictures per second of one core: a training picture from its file to what the collator hands on, by size and setting.

    python benchmarks/input.py
    python benchmarks/input.py --side 224 --rounds 9

Ways of reading, each a whole batch that is stacked in the end:

    floats                  `train.pixels_as_bytes=false data.direct_resize=false`: the image processor's own output, as
                            LLaVA reads
    bytes                   `data.direct_resize=false`: its resized bytes, which a table makes pixels of on the device
    default                 the same with `data.direct_resize`, which resizes only what is kept
    floats / default, reduced  with `data.reduce_large_images=true`
    torchvision resizes     Pillow decodes, torchvision pads and resizes the tensor, bytes; not in the package
    torchvision             the same with `torchvision.io` as decoder, which is deprecated since torchvision 0.29

and, of these, decoding alone. `table` is what the bytes cost afterwards where no GPU does it. Pictures are noise with a
photograph's spectrum (amplitude falls with frequency) and a sensor's noise; a file's bits per pixel are written beside
its figures. Files come from memory (the page cache). Times are those of the processor, in rounds; one thread, as a
loader's worker has. Written to benchmarks/results/input.json, one entry for each machine and side.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from speed.made_by import made_by
from speed.rounds import cpu_clock, in_turns, spread

from tove_lvlm import ToVEImageProcessor, ToVEVisionConfig
from tove_lvlm.data.dataset import ToVEDataset
from tove_lvlm.data.images import read_image
from tove_lvlm.data.pixel_table import PixelTable
from tove_lvlm.storage import load_json, save_json

RESULTS = Path(__file__).parent / "results" / "input.json"
PICTURES = ("640x480.jpg", "1280x960.jpg", "4000x3000.jpg", "640x480.png")
QUALITY = 90
SETTINGS = {
    "floats": {"as_bytes": False},
    "bytes": {"as_bytes": True},
    "default": {"as_bytes": True, "direct_resize": True},
    "floats, reduced": {"as_bytes": False, "reduce_large_images": True},
    "default, reduced": {"as_bytes": True, "direct_resize": True, "reduce_large_images": True},
}
"""Row -> what it asks of the data set."""
OTHERS = ("torchvision resizes", "torchvision")


def main() -> int:
    """Measure and write."""
    arguments = parse_arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        entry = made_by(arguments, "side", "batch_size", "rounds", "aspect_ratio")
        entry |= {"clock": "cpu", "quality": QUALITY, "pictures": measure(Path(folder), arguments)}
    key = f"{entry['hardware']} side {arguments.side}"
    earlier = load_json(arguments.output) if arguments.output.is_file() else {}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    save_json(arguments.output, earlier | {key: entry})
    print(table(entry["pictures"]))
    print(f"written: {arguments.output}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", nargs="+", default=list(PICTURES), help="WIDTHxHEIGHT.jpg or .png")
    parser.add_argument("--side", type=int, default=336, help="of the tower's input")
    parser.add_argument("--aspect-ratio", default="pad", choices=("pad", "square"))
    parser.add_argument(
        "--batch-size", type=int, default=2, help="different pictures of a size, read one after the other"
    )
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, after one to warm up")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.set_defaults(device="cpu")
    return parser.parse_args()


def paint(width: int, height: int, seed: int) -> Image.Image:
    """Noise of all sizes, each octave half as strong as the coarser one, and a sensor's noise of 2 levels on it."""
    rng = np.random.default_rng(seed)
    sum_HW3, strength, cells = np.full((height, width, 3), 128.0, np.float32), 64.0, 4
    while cells < min(width, height):
        noise_hw3 = rng.normal(size=(cells, cells * width // height, 3)).astype(np.float32)
        for channel in range(3):
            plane = Image.fromarray(noise_hw3[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
            sum_HW3[..., channel] += strength * np.asarray(plane)
        strength, cells = strength / 2, cells * 2
    sum_HW3 += 2 * rng.standard_normal(sum_HW3.shape, dtype=np.float32)
    return Image.fromarray(sum_HW3.clip(0, 255).astype(np.uint8))


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """For each kind of picture: pictures per second of one core, and bytes of a picture that is handed on.

    Args:
        folder: For the files.
        arguments: The command line.
    """
    processor = make_processor(arguments.side)
    kinds = {kind: write_pictures(folder, kind, arguments.batch_size) for kind in arguments.pictures}
    readers = {kind: readers_of(folder, names, processor, arguments.aspect_ratio) for kind, names in kinds.items()}
    calls = {f"{kind} {way}": call for kind, ways in readers.items() for way, call in ways.items()}
    elapsed = in_turns(calls, cpu_clock, arguments.rounds)
    found = {}
    for kind, ways in readers.items():
        batches = {way: ways[way]() for way in (*SETTINGS, *OTHERS)}
        exact = batches["bytes"].int()
        off = {way: (batches[way].int() - exact).abs().float() for way in ("default", "default, reduced", *OTHERS)}
        image = Image.open(folder / kinds[kind][0])
        sizes = [(folder / name).stat().st_size for name in kinds[kind]]
        rates = {way: [1e3 * arguments.batch_size / ms for ms in elapsed[f"{kind} {way}"]] for way in ways}
        found[kind] = {
            "bits_per_pixel": round(8 * sum(sizes) / len(sizes) / (image.width * image.height), 2),
            "pictures_per_cpu_s": {way: spread(values, 2) for way, values in rates.items()},
            "bytes_handed_on": {way: batch[0].nbytes for way, batch in batches.items()},
            "levels_from_bytes": {
                way: {"mean": round(levels.mean().item(), 3), "largest": levels.max().item()}
                for way, levels in off.items()
            },
        }
    return found


def make_processor(side: int) -> ToVEImageProcessor:
    """Of a tower with an input of `side` pixels."""
    clip = {"hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1, "image_size": side, "patch_size": 14}
    return ToVEImageProcessor.for_tower(ToVEVisionConfig(clip_config=clip))


def write_pictures(folder: Path, kind: str, number: int) -> list[str]:
    """Names of the files that are written.

    Args:
        folder: For them.
        kind: WIDTHxHEIGHT.ENDING.
        number: How many.
    """
    size, ending = kind.split(".")
    width, height = map(int, size.split("x"))
    names = [f"{size}-{seed}.{ending}" for seed in range(number)]
    for seed, name in enumerate(names):
        paint(width, height, seed).save(folder / name, **({"quality": QUALITY} if ending == "jpg" else {}))
    return names


def readers_of(
    folder: Path, names: list[str], processor: ToVEImageProcessor, aspect_ratio: str
) -> dict[str, Callable[[], Any]]:
    """Each way of reading these files: a batch that is handed on, or what is decoded alone.

    Args:
        folder: Holds the files.
        names: Theirs.
        processor: Of the tower.
        aspect_ratio: As `images.to_pixels`.
    """
    side = processor.crop_size["height"]
    rows = [{"id": name, "image": name, "conversations": _TALK} for name in names]
    file = folder / f"{names[0]}.json"
    file.write_text(json.dumps(rows))

    def batch_of(settings: dict[str, Any]) -> Callable[[], torch.Tensor]:
        dataset = ToVEDataset(
            file,
            tokenizer=None,
            num_image_tokens=1,
            model_max_length=2048,
            image_folder=folder,
            image_processor=processor,
            image_aspect_ratio=aspect_ratio,
            **settings,
        )
        return lambda: torch.stack([dataset.pixels(index) for index in range(len(names))])

    calls: dict[str, Callable[[], Any]] = {way: batch_of(settings) for way, settings in SETTINGS.items()}
    color = [int(mean * 255) for mean in processor.image_mean] if aspect_ratio == "pad" else None
    for way, decode in (("torchvision resizes", by_pillow), ("torchvision", by_torchvision)):
        calls[way] = lambda decode=decode: torch.stack([resized(decode(folder / n), side, color) for n in names])
    calls["decoding alone"] = lambda: [read_image(folder / name) for name in names]
    calls["decoding alone, reduced"] = lambda: [read_image(folder / name, reduce_to=side) for name in names]
    calls["decoding alone, torchvision"] = lambda: [by_torchvision(folder / name) for name in names]
    pixels_of, bytes_B3HW = PixelTable.of(processor, aspect_ratio), calls["bytes"]()
    assert pixels_of is not None
    calls["table"] = lambda: pixels_of(bytes_B3HW)
    return calls


_TALK = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "noise"}]


def by_pillow(path: Path) -> torch.Tensor:
    """(3, H, W) bytes of a file, decoded as the package does."""
    return torch.from_numpy(np.array(read_image(path))).permute(2, 0, 1)


def by_torchvision(path: Path) -> torch.Tensor:
    """(3, H, W) bytes of a file, decoded by torchvision."""
    from torchvision import io

    return io.decode_image(io.read_file(str(path)), mode=io.ImageReadMode.RGB)


def resized(bytes_3HW: torch.Tensor, side: int, color: list[int] | None) -> torch.Tensor:
    """(3, S, S) bytes: padded to a square with a colour where one is given, resized, the middle cut out.

    Args:
        bytes_3HW: A picture.
        side: S.
        color: Of red, green and blue.
    """
    from torchvision.transforms.v2 import functional as v2

    height, width = bytes_3HW.shape[1:]
    if color is not None and height != width:
        long = max(height, width)
        square_3SS = torch.tensor(color, dtype=torch.uint8)[:, None, None].repeat(1, long, long)
        top, left = (long - height) // 2, (long - width) // 2
        square_3SS[:, top : top + height, left : left + width] = bytes_3HW
        bytes_3HW = square_3SS
    small_3hw = v2.resize(bytes_3HW, [side], v2.InterpolationMode.BICUBIC, antialias=True)
    return v2.center_crop(small_3hw, [side, side])


def table(pictures: dict[str, Any]) -> str:
    """Markdown: pictures per second of one core, median and range of the rounds.

    Args:
        pictures: Of `measure`.
    """
    lines = ["| pictures/s of a core | " + " | ".join(pictures) + " | bytes handed on |"]
    lines.append("|---" * (2 + len(pictures)) + "|")
    first = next(iter(pictures.values()))
    for way in first["pictures_per_cpu_s"]:
        rates = [found["pictures_per_cpu_s"][way] for found in pictures.values()]
        cells = [f"{rate['median']:.4g} ({rate['low']:.4g} to {rate['high']:.4g})" for rate in rates]
        handed = first["bytes_handed_on"].get(way)
        lines.append(f"| {way} | " + " | ".join(cells) + f" | {'' if handed is None else f'{handed:,}'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
