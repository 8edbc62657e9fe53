"""COCO Captions (val2014 or Karpathy's test split) and NoCaps, scored as pycocoevalcap does.

The parts of NoCaps (`in-domain`, `near-domain`, `out-domain`) are scored each from its own images, CIDEr's document
frequencies included, as the test server does. What it calls `entire` are the metrics over all images.

See docs/evaluation.md, "Captions".
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..io.answers import texts_of
from ..io.caption_files import read_captioned_images
from ..io.find import Layout
from ..io.items import Item, checked, upload_id
from ..io.problems import Problems
from ..metrics import caption_java
from ..metrics.caption import score_captions
from ..metrics.score import Score
from .base import TASKS, Task

_LLAVA = "playground/data/eval/coco_caption"


@TASKS.register("coco_caption")
class CocoCaption(Task):
    """One caption for each image; a question's id is its image's.

    A missing caption is scored as an empty one: the official tools refuse such a file, and leaving hard images out must
    not raise a score.
    """

    name = "coco_caption"
    about = "COCO Captions (val2014, or Karpathy's test split): CIDEr, BLEU-1..4, METEOR, ROUGE-L, SPICE"
    source = (
        "https://cocodataset.org/#download: annotations_trainval2014.zip and val2014.zip; Karpathy's split: "
        "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
    )
    layouts: ClassVar[tuple[Layout, ...]] = (
        Layout(labels=(f"{_LLAVA}/captions_val2014.json",), images=f"{_LLAVA}/val2014"),
        Layout(labels=("coco/annotations/coco_karpathy_test.json",), images="coco/images/val2014"),
        Layout(labels=("annotations/captions_val2014.json",), images="val2014"),
    )
    prompt = "Provide a one-sentence caption for the provided image."
    bare_prompt = ""
    max_new_tokens = 64
    bare_decoding: ClassVar[Mapping[str, int]] = {"num_beams": 3, "max_new_tokens": 20, "min_new_tokens": 5}
    """BLIP's."""

    def read(self, labels: Sequence[Path], problems: Problems) -> list[Item]:
        """Any of the files that `read_captioned_images` takes."""
        images = (image for path in labels for image in read_captioned_images(path, problems))
        items = (
            Item(
                question_id=image.image_id,
                image=image.file_name,
                text=self.prompt.format(question=""),
                gold=image.captions or None,
                group=image.domain,
                aliases=(image.file_name,),
            )
            for image in images
        )
        return checked(items, labels, problems, "images with captions")

    def check_scorer(self) -> None:
        """Java and pycocoevalcap."""
        caption_java.check()

    def score(self, items: Sequence[Item], answers: Mapping[str, str], convention: str, problems: Problems) -> Score:
        """Metrics as `score_captions` has them, over all images and for each part of the benchmark."""
        captions = [text or "" for text in texts_of(items, answers, problems)]
        return score_captions(captions, [item.gold for item in items], [item.group for item in items])

    def upload(self, items: Sequence[Item], answers: Mapping[str, str]) -> list[dict[str, Any]]:
        """`[{image_id, caption}]` in the items' order, as the test servers take it; a missing caption is ""."""
        return [
            {"image_id": upload_id(item.question_id), "caption": answers.get(item.question_id, "").strip()}
            for item in items
        ]


@TASKS.register("nocaps")
class NoCaps(CocoCaption):
    """Captions of images with objects that COCO's captions do not know; an image's `domain` is its group."""

    name = "nocaps"
    about = "NoCaps (val): CIDEr and the other caption metrics, entire and for each domain"
    source = "https://nocaps.org/download: nocaps_val_4500_captions.json; the images are Open Images', by `coco_url`"
    layouts = (
        Layout(labels=("playground/data/eval/nocaps/*captions*.json",), images="playground/data/eval/nocaps/val"),
        Layout(labels=("nocaps_val_4500_captions.json",), images="val"),
    )
