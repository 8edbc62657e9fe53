"""The package under scripts/, and a tree of packages in the form in which Debian and PyPI have them."""

import gzip
import json

import numpy as np
import pytest
from PIL import Image

from helpers.paths import ROOT

STAMPS = {
    "animals/birds/blackbird": "A blackbird.",
    "animals/birds/blackbird_mirror": "A blackbird.",
    "animals/cats/lion": "A lion.",
    "town/roadsigns/stop": "Stop!",
    "space/voyager": "The Voyager probe.",
}
CLIPART = {
    "animals/cat_01": ("Cat 1", ["animal", "HASH(0x1)"]),
    "animals/cat_02": ("Cat 2", ["animal"]),
    "animals/penguin": ("Clipart by Nicu Buculei - penguin (B and W)", ["bird"]),
    "food/apple_and_cat": ("An apple &amp; a cat", ["food"]),
    "people/stripper": ("Dancing woman", []),
    "shapes/stars/star": ("star", ["shapes"]),
}
SVG = "<svg><dc:title>{}</dc:title><rdf:Bag>{}</rdf:Bag></svg>"


@pytest.fixture(scope="session")
def scripts():
    """The folder scripts/ can be imported from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        yield


def picture(file, mode="RGBA", size=(8, 4), color=(255, 0, 0, 0)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(file)


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """Their root folder."""
    root = tmp_path_factory.mktemp("packages")
    for name, caption in STAMPS.items():
        file = root / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps" / f"{name}.png"
        picture(file)
        file.with_suffix(".txt").write_text(f"{caption}\nde.utf8=Etwas.\n", encoding="utf-8")
    for name, (title, keywords) in CLIPART.items():
        picture(root / f"openclipart-png/usr/share/openclipart/png/{name}.png")
        svg = root / f"openclipart-svg/usr/share/openclipart/svg/{name}.svg"
        svg.parent.mkdir(parents=True, exist_ok=True)
        svg.write_text(SVG.format(title, "".join(f"<rdf:li>{word}</rdf:li>" for word in keywords)))
    for split in ("train", "test"):
        folder = root / "easy-vqa/easy_vqa/data" / split
        for number in range(3):
            picture(folder / "images" / f"{number}.png", "RGB", (64, 64), (0, 0, 255))
        rows = [[f"question {k}?", "blue", number] for number in range(3) for k in range(4)]
        (folder / "questions.json").write_text(json.dumps(rows))
    (root / "easy-vqa/easy_vqa/data/answers.txt").write_text("blue\nyes\nno")
    folder = root / "dataset-fashion-mnist/usr/share/datasets/fashion-mnist"
    folder.mkdir(parents=True)
    for split, number in (("train", 5), ("t10k", 4)):
        images = np.arange(number * 28 * 28, dtype=np.uint32).astype(np.uint8)
        header = b"".join(value.to_bytes(4, "big") for value in (0x803, number, 28, 28))
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
        labels = bytes([0, 0, 8, 1]) + number.to_bytes(4, "big") + bytes(range(number))
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return root
