"""Files of captions, questions and statements as LLaVA's samples, which everything else reads.

    coco            captions_*.json: {"images": [{id, file_name}], "annotations": [{id, image_id, caption}]}
    karpathy        dataset_coco.json: {"images": [{filepath, filename, split, sentences: [{raw}]}]}, train and restval
    tsv             a text, a tab and an image path a line; a first line that names no image file is a heading
    visual_genome   region_descriptions.json: [{regions: [{region_id, image_id, phrase}]}], images IMAGE_ID.jpg
    vsr             JSONL of {image, caption, label: 0 | 1}

Each reader gives a file's entries; what is wrong with one is said when it is converted (`Records.load`).
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .conversations import FALSE, STATEMENT, TRUE
from .errors import DataError
from .records import read_entries, read_text

_TRAIN_SPLITS = ("train", "restval")


class TextSource(NamedTuple):
    """How one format is read."""

    entries: Callable[[Path], Iterator[Any]]
    convert: Callable[[Any], dict[str, Any]] | None
    """An entry to a LLaVA sample; None where it is one."""


def caption_sample(sample_id: Any, image: Any, caption: Any, question: str = "") -> dict[str, Any]:
    """A LLaVA sample of one text about one image.

    Raises:
        DataError: There is no image or no text.
    """
    if not isinstance(image, str) or not image:
        raise DataError("the entry has a text and no image", sample_id=str(sample_id))
    if not isinstance(caption, str) or not caption.strip():
        raise DataError("the entry has an image and no text", sample_id=str(sample_id))
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": caption.strip()}]
    return {"id": str(sample_id), "image": image, "conversations": turns}


def _lists(path: Path, *keys: str) -> list[list[Any]]:
    """These lists of a file that is one JSON object.

    Raises:
        DataError: It is not, or lacks one.
    """
    text = read_text(path)
    try:
        found = _fields(json.loads(text))
    except ValueError as error:
        raise DataError(f"not valid JSON: {error}", file=path) from error
    for key in keys:
        if not isinstance(found.get(key), list):
            raise DataError(f"expected an object with the list `{key}`", file=path)
    return [found[key] for key in keys]


def _fields(entry: Any) -> dict[str, Any]:
    """An entry's; of something else none, so that it is named as one that lacks them."""
    return entry if isinstance(entry, dict) else {}


def _entries(value: Any) -> list[dict[str, Any]]:
    """The entries of a list in an entry; of something else one without fields."""
    return [_fields(entry) for entry in value] if isinstance(value, list) and value else [{}]


def _coco(path: Path) -> Iterator[Any]:
    pictures, annotations = _lists(path, "images", "annotations")
    names = {image.get("id"): image.get("file_name") for image in map(_fields, pictures)}
    for entry in map(_fields, annotations):
        yield entry.get("id"), names.get(entry.get("image_id")), entry.get("caption")


def _karpathy(path: Path) -> Iterator[Any]:
    (images,) = _lists(path, "images")
    for image in map(_fields, images):
        if image.get("split") not in _TRAIN_SPLITS:
            continue
        name = "/".join(str(part) for part in (image.get("filepath"), image.get("filename")) if part)
        for number, sentence in enumerate(_entries(image.get("sentences"))):
            yield f"{image.get('cocoid', name)}/{number}", name, sentence.get("raw")


def _tsv(path: Path) -> Iterator[Any]:
    # Not splitlines: U+2028 and the like may stand inside a caption.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        caption, _, image = line.rstrip("\r").partition("\t")
        if number == 1 and not Path(image).suffix:
            continue
        if line.strip():
            yield f"line {number}", image.split("\t")[0], caption


def _visual_genome(path: Path) -> Iterator[Any]:
    for image in map(_fields, read_entries(path)):
        for region in _entries(image.get("regions")) if image.get("regions") != [] else ():
            number = region.get("image_id", image.get("id"))
            yield region.get("region_id"), None if number is None else f"{number}.jpg", region.get("phrase")


def _statement(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict) or entry.get("label") not in (0, 1) or not isinstance(entry.get("caption"), str):
        raise DataError("expected {image, caption, label} with a label of 0 or 1")
    question = STATEMENT.format(statement=entry["caption"].strip())
    answer = TRUE if entry["label"] else FALSE
    return caption_sample(entry.get("id", entry.get("image")), entry.get("image"), answer, question)


def _of_parts(parts: tuple[Any, Any, Any]) -> dict[str, Any]:
    return caption_sample(*parts)


SOURCES = {
    "llava": TextSource(read_entries, None),
    "coco": TextSource(_coco, _of_parts),
    "karpathy": TextSource(_karpathy, _of_parts),
    "tsv": TextSource(_tsv, _of_parts),
    "visual_genome": TextSource(_visual_genome, _of_parts),
    "vsr": TextSource(read_entries, _statement),
}
"""By the names of `config.encoder_decoder.FORMATS`."""
