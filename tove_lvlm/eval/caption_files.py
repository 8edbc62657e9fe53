"""Files with reference captions: COCO's form (NoCaps' too) and both forms in which Karpathy's split is about. EVAL.md 1.

COCO's: `{images: [{id, file_name, ...}], annotations: [{id, image_id, caption}]}`, NoCaps with a `domain` in each image.
Karpathy's own `dataset_coco.json`: `{images: [{cocoid, filename, split, sentences: [{raw, ...}]}]}`, of which the split
`test` is taken. LAVIS's `coco_karpathy_test.json`: `[{image: "val2014/COCO_val2014_000000391895.jpg", caption: [...]}]`.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ..config import UserError
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
        rows = _rows(content, "images", path.name, problems)
        karpathy = any("sentences" in row.fields for row in rows)
        images = _karpathy(rows, problems) if karpathy else _coco(rows, content, path.name, problems)
    if any(image.captions for image in images):
        problems.add_all("image without a reference", (image.image_id for image in images if not image.captions))
        images = [image for image in images if image.captions]
    if not images:
        raise UserError(
            f"caption file `{path}` has no image that can be used; expected COCO's form (`images` with `id` and "
            "`file_name`, `annotations` with `image_id` and `caption`), `dataset_coco.json` or `coco_karpathy_test.json`"
        )
    return images


def _coco(images: list[Row], content: dict[str, Any], name: str, problems: Problems) -> list[CaptionedImage]:
    captions: dict[str, list[str]] = {}
    for row in _rows(content, "annotations", name, problems):
        if row.has(["image_id", "caption"], problems):
            captions.setdefault(str(row.fields["image_id"]), []).extend(_usable([row.fields["caption"]], row, problems))
    found = [
        CaptionedImage(
            image_id=str(row.fields["id"]),
            file_name=str(row.fields["file_name"]),
            captions=tuple(captions.get(str(row.fields["id"]), ())),
            domain=str(row.fields.get("domain", "")),
        )
        for row in images
        if row.has(["id", "file_name"], problems)
    ]
    known = {image.image_id for image in found}
    problems.add_all("reference for an unknown image", (image_id for image_id in captions if image_id not in known))
    return found


def _karpathy(images: list[Row], problems: Problems) -> list[CaptionedImage]:
    found = []
    for row in images:
        if row.has(["split", "cocoid", "filename", "sentences"], problems) and row.fields["split"] == "test":
            said = [sentence.get("raw") for sentence in row.fields["sentences"]]
            captions = tuple(_usable(said, row, problems))
            found.append(CaptionedImage(str(row.fields["cocoid"]), str(row.fields["filename"]), captions))
    return found


def _lavis(rows: list[Row], problems: Problems) -> list[CaptionedImage]:
    found = []
    for row in rows:
        if row.has(["image", "caption"], problems):
            file_name = Path(str(row.fields["image"])).name
            number = re.search(r"(\d+)\.\w+$", file_name)
            said = row.fields["caption"]
            if number is None:
                problems.add("image name without a number", row.where)
                continue
            captions = tuple(_usable(said if isinstance(said, list) else [said], row, problems))
            found.append(CaptionedImage(str(int(number[1])), file_name, captions))
    return found


def _usable(captions: Iterable[Any], row: Row, problems: Problems) -> Iterable[str]:
    for caption in captions:
        if isinstance(caption, str) and caption.strip():
            yield caption
        else:
            problems.add("reference without words", row.where)


def _rows(content: dict[str, Any], key: str, name: str, problems: Problems) -> list[Row]:
    """The objects of the list at `key`; none where there is no such list."""
    values = content.get(key)
    rows = [Row(f"{name}:{key}[{k}]", value) for k, value in enumerate(values if isinstance(values, list) else ())]
    problems.add_all("row that is not an object", (row.where for row in rows if not isinstance(row.fields, dict)))
    return [row for row in rows if isinstance(row.fields, dict)]
