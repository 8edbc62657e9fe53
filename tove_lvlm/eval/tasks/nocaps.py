"""NoCaps: captions of images with objects that COCO's captions do not know.

The parts of the benchmark (`in-domain`, `near-domain`, `out-domain`) are scored each from its own images, CIDEr's
document frequencies included, as the test server does. What it calls `entire` are the metrics over all images.

See docs/evaluation.md, "Captions".
"""

from ..task import TASKS, Layout
from .coco_caption import CocoCaption


@TASKS.register("nocaps")
class NoCaps(CocoCaption):
    """COCO's task in NoCaps' files: an image's `domain` is its group."""

    name = "nocaps"
    about = "NoCaps (val): CIDEr and the other caption metrics, entire and for each domain"
    source = "https://nocaps.org/download: nocaps_val_4500_captions.json; the images are Open Images', by `coco_url`"
    layouts = (
        Layout(labels=("playground/data/eval/nocaps/*captions*.json",), images="playground/data/eval/nocaps/val"),
        Layout(labels=("nocaps_val_4500_captions.json",), images="val"),
    )
