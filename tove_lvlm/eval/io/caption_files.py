"""Files with reference captions: COCO's form, NoCaps' and both forms of Karpathy's split.

COCO's is `{images: [{id, file_name, ...}], annotations: [{id, image_id, caption}]}`; NoCaps' images have a `domain`.
Karpathy's own `dataset_coco.json` is `{images: [{cocoid, filename, split, sentences: [{raw, ...}]}]}`; its split `test`
is taken. LAVIS' `coco_karpathy_test.json` is `[{image: "val2014/COCO_val2014_000000391895.jpg", caption: [...]}]`.

See docs/evaluation.md, "Captions".
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

from ...config import UserError
from .labels import rows_under
from .problems import Problems
from .rows import Row, read_json


class CaptionedImage(NamedTuple):
    """One image with its references."""

    image_id: str
    file_name: str
    captions: tuple[str, ...]
    """Empty for all images of a test split, whose references are not public."""
    domain: str = ""


def read_captioned_images(path: str | Path, problems: Problems) -> list[CaptionedImage]:
    """Images of a caption file in its order.

    Rows that cannot be used, captions for unknown images and, where others have references, images without any are
    noted and left out.

    Raises:
        UserError: The file is absent, is in none of the forms, or no image of it can be used.
    """
    path = Path(path)
    content = read_json(path, problems)
    if isinstance(content, list):
        images = _lavis(content, problems)
    else:
        rows = rows_under(content, "images", path, problems) if "images" in content else []
        annotations = rows_under(content, "annotations", path, problems) if "annotations" in content else []
        karpathy = any("sentences" in row.fields for row in rows)
        images = _karpathy(rows, problems) if karpathy else _coco(rows, annotations, problems)
    if any(image.captions for image in images):
        problems.add_all("image without a reference", (image.image_id for image in images if not image.captions))
        images = [image for image in images if image.captions]
    if not images:
        raise UserError(
            f"caption file `{path}` has no image that can be used; expected COCO's form (`images` of `id, file_name`, "
            "`annotations` of `image_id, caption`), Karpathy's `dataset_coco.json` or LAVIS' `coco_karpathy_test.json`"
        )
    return images


def _coco(images: list[Row], annotations: list[Row], problems: Problems) -> list[CaptionedImage]:
    captions: dict[str, list[str]] = {}
    for row in annotations:
        if row.has(["image_id"], problems):
            captions.setdefault(row.text("image_id"), []).extend(_usable(row, [row.fields.get("caption")], problems))
    captioned = [
        CaptionedImage(
            image_id=row.text("id"),
            file_name=row.text("file_name"),
            captions=tuple(captions.get(row.text("id"), ())),
            domain=row.text("domain"),
        )
        for row in images
        if row.has(["id", "file_name"], problems)
    ]
    image_ids = {image.image_id for image in captioned}
    problems.add_all("reference for an unknown image", (image_id for image_id in captions if image_id not in image_ids))
    return captioned


def _karpathy(images: list[Row], problems: Problems) -> list[CaptionedImage]:
    captioned = []
    for row in images:
        if row.has(["split", "cocoid", "filename"], problems) and row.text("split") == "test":
            sentences = [each.get("raw") if isinstance(each, dict) else each for each in _listed(row, "sentences")]
            captions = tuple(_usable(row, sentences, problems))
            captioned.append(CaptionedImage(row.text("cocoid"), row.text("filename"), captions))
    return captioned


def _lavis(rows: list[Row], problems: Problems) -> list[CaptionedImage]:
    captioned = []
    for row in rows:
        if row.has(["image"], problems):
            file_name = Path(row.text("image")).name
            number = re.search(r"(\d+)\.\w+$", file_name)
            if number is None:
                problems.add("image name without a number", row.where)
                continue
            captions = tuple(_usable(row, _listed(row, "caption"), problems))
            captioned.append(CaptionedImage(str(int(number[1])), file_name, captions))
    return captioned


def _listed(row: Row, name: str) -> list[Any]:
    """A field that is a list, or the single value that it is; none where it is absent."""
    value = row.fields.get(name, [])
    return value if isinstance(value, list) else [value]


def _usable(row: Row, captions: list[Any], problems: Problems) -> list[str]:
    usable = [caption for caption in captions if isinstance(caption, str) and caption.strip()]
    problems.add_all("reference without words", [row.where] * (len(captions) - len(usable)))
    return usable
