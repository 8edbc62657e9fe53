"""Files of captions, questions and statements as LLaVA's samples, which everything else reads.

    coco            captions_*.json: {"images": [{id, file_name}], "annotations": [{id, image_id, caption}]}
    karpathy        dataset_coco.json: {"images": [{filepath, filename, split, sentences: [{raw}]}]}, train and restval
    tsv             a text, a tab and an image path a line; a first line that names no image file is a heading
    visual_genome   region_descriptions.json: [{regions: [{region_id, image_id, phrase}]}], images IMAGE_ID.jpg
    vsr             JSONL of {image, caption, label: 0 | 1}
    vqav2           v2_OpenEnded_*_questions.json and v2_*_annotations.json, in any order; images COCO_train2014_*.jpg
    webdataset      tar shards, see `shards`

Each reader gives the files' entries; what is wrong with one is said when it is converted (`Records.load`).
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .entries import Reader, caption_sample, each, fields_of, id_of, read_entries, read_lists, read_text
from .errors import DataError
from .records import READ_SAMPLES
from .shards import read_shard
from .turns import FALSE, STATEMENT, TRUE
from .vqav2 import read_vqav2

_TRAIN_SPLITS = ("train", "restval")


class TextSource(NamedTuple):
    """How one format is read."""

    reader: Reader
    convert: Callable[[Any], dict[str, Any]] | None
    """An entry to a LLaVA sample; None where it is one."""


def _entries(value: Any) -> list[dict[str, Any]]:
    """The entries of a list in an entry; of something else one without fields."""
    return [fields_of(entry) for entry in value] if isinstance(value, list) and value else [{}]


def _coco(path: Path) -> Iterator[Any]:
    pictures, annotations = read_lists(path, "images", "annotations")
    names = {id_of(image, "id"): image.get("file_name") for image in map(fields_of, pictures)}
    names.pop(None, None)
    for entry in map(fields_of, annotations):
        yield entry.get("id"), names.get(id_of(entry, "image_id")), entry.get("caption")


def _karpathy(path: Path) -> Iterator[Any]:
    (images,) = read_lists(path, "images")
    for image in map(fields_of, images):
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
    for image in map(fields_of, read_entries(path)):
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
    "llava": TextSource(READ_SAMPLES, None),
    "coco": TextSource(each(_coco), _of_parts),
    "karpathy": TextSource(each(_karpathy), _of_parts),
    "tsv": TextSource(each(_tsv), _of_parts),
    "visual_genome": TextSource(each(_visual_genome), _of_parts),
    "vsr": TextSource(each(read_entries), _statement),
    "vqav2": TextSource(read_vqav2, None),
    "webdataset": TextSource(each(read_shard), None),
}
"""By the names of `config.encoder_decoder.FORMATS`."""
