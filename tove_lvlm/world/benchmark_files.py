"""The miniature's benchmark files, field by field in the official schemas.

Each function gives the files of one benchmark: path -> text. What the world has nothing to say about (links, licences,
token lists) is there and empty. The ten annotators of a question agree, as the world is exact.

See docs/evaluation.md, "Tasks".
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .language import Question, Statement, is_there
from .scene import COLORS, IMAGE_SIZE, MAX_OBJECTS, MIN_OBJECTS, SHAPES

EVAL = "playground/data/eval"
POPE_SPLITS = ("random", "popular", "adversarial")

_LLAVA_POPE_IDS = {"adversarial": 0, "random": 10_000_000, "popular": 20_000_000}
_NUM_ANNOTATORS = 10
_INFO = {"description": "", "url": "", "version": "", "year": 0, "contributor": "", "date_created": ""}
_LICENSE = {"url": "", "name": ""}
_DOMAINS = ("in-domain", "near-domain", "out-domain")
_PAIR = re.compile(r"The (\w+ object) is (?:to the )?(.+) the (\w+ object)\.")
# GQA's structural and semantic type of each family; it has no questions of number
_GQA_TYPES = {"exist": ("verify", "obj"), "shape": ("query", "cat"), "color": ("query", "attr")}
_GQA_TYPES |= {family: ("choose", "rel") for family in ("leftright", "updown", "nearfar")}
_GQA_TYPES |= {family: ("compare", "rel") for family in ("rel_left", "rel_above", "rel_nearer")}


class DescribedImage(NamedTuple):
    """What is said about one picture."""

    image_id: int
    """From 1."""
    objects: list[str]
    """As `red sphere`, in random order."""
    questions: list[Question]
    statements: list[Statement]
    captions: list[str]
    """At least ten, which differ in the pair that they compare."""


def coco_name(image_id: int) -> str:
    """File name of an image of COCO val2014."""
    return f"COCO_val2014_{image_id:012d}.jpg"


def open_images_name(image_id: int) -> str:
    """File name of an image of Open Images, which NoCaps and TextVQA use."""
    return f"{image_id:016x}.jpg"


def pope(pictures: Sequence[DescribedImage], rng: np.random.Generator) -> dict[str, str]:
    """POPE's label files and LLaVA's pooled question file.

    As in POPE, a picture's objects are asked about in all three splits, and after each comes an object that is not
    there: any one (random), the most frequent one of the data set (popular), or the one that is most often seen
    together with the object before (adversarial). No object is asked about twice.
    """
    everything = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
    frequency = Counter(name for picture in pictures for name in picture.objects)
    together: dict[str, Counter[str]] = defaultdict(Counter)
    for picture in pictures:
        for name in picture.objects:
            together[name].update(other for other in picture.objects if other != name)
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in POPE_SPLITS}
    for split, rows in splits.items():
        for picture in pictures:
            present = set(picture.objects)
            for name in picture.objects[:MIN_OBJECTS]:
                ranked = {"random": [], "popular": frequency.most_common(), "adversarial": together[name].most_common()}
                absent = next((other for other, _ in ranked[split] if other not in present), None)
                absent = absent or str(rng.choice([other for other in everything if other not in present]))
                present.add(absent)
                for object_name, label in ((name, "yes"), (absent, "no")):
                    image = coco_name(picture.image_id)
                    rows.append(
                        {"question_id": len(rows) + 1, "image": image, "text": is_there(object_name), "label": label}
                    )
    pooled = [
        {
            "question_id": first + row["question_id"],
            "image": row["image"],
            "text": row["text"],
            "category": split,
        }
        for split, first in _LLAVA_POPE_IDS.items()
        for row in splits[split]
    ]
    files = {f"{EVAL}/pope/coco/coco_pope_{split}.json": _lines(rows) for split, rows in splits.items()}
    return files | {f"{EVAL}/pope/llava_pope_test.jsonl": _lines(pooled)}


def vsr(pictures: Sequence[DescribedImage]) -> dict[str, str]:
    """VSR's zero-shot test file. Statements of place and distance only: VSR has none about what a thing is."""
    rows = []
    for picture in pictures:
        for statement in picture.statements:
            pair = _PAIR.fullmatch(statement.text)
            if pair:
                rows.append(
                    {
                        "image": f"{picture.image_id:012d}.jpg",
                        "image_link": "",
                        "caption": statement.text,
                        "label": int(statement.label),
                        "relation": pair[2],
                        "subj": pair[1],
                        "obj": pair[3],
                        "annotator_id": 0,
                        "vote_true_validator_id": "[0]" if statement.label else "[]",
                        "vote_false_validator_id": "[]" if statement.label else "[0]",
                    }
                )
    return {f"{EVAL}/vsr/zeroshot/test.jsonl": _lines(rows)}


def vqav2(pictures: Sequence[DescribedImage]) -> dict[str, str]:
    """VQAv2's questions and annotations of val2014."""
    questions, annotations = [], []
    for picture in pictures:
        for k, question in enumerate(picture.questions):
            ids = {"image_id": picture.image_id, "question_id": 1000 * picture.image_id + k}
            questions.append(ids | {"question": question.text})
            annotations.append(
                {
                    "question_type": " ".join(question.text.lower().split()[:2]),
                    "multiple_choice_answer": question.answer,
                    "answers": _annotators(question.answer, ids=True),
                    "answer_type": _answer_type(question.answer),
                }
                | ids
            )
    head = {"info": _INFO, "data_type": "mscoco", "data_subtype": "val2014", "license": _LICENSE}
    questions_file = head | {"task_type": "Open-Ended", "questions": questions}
    return {
        "v2_OpenEnded_mscoco_val2014_questions.json": json.dumps(questions_file),
        "v2_mscoco_val2014_annotations.json": json.dumps(head | {"annotations": annotations}),
    }


def gqa(pictures: Sequence[DescribedImage]) -> dict[str, str]:
    """GQA's balanced test-dev questions: all families but `count`."""
    questions: dict[str, dict[str, Any]] = {}
    for picture in pictures:
        for question in picture.questions:
            if question.family in _GQA_TYPES:
                structural, semantic = _GQA_TYPES[question.family]
                questions[f"{len(questions) + 1:09d}"] = {
                    "semantic": [],
                    "entailed": [],
                    "equivalent": [],
                    "question": question.text,
                    "imageId": f"n{picture.image_id}",
                    "isBalanced": True,
                    "groups": {"global": None, "local": None},
                    "answer": question.answer,
                    "semanticStr": "",
                    "annotations": {"question": {}, "answer": {}, "fullAnswer": {}},
                    "types": {"detailed": question.family, "semantic": semantic, "structural": structural},
                    "fullAnswer": f"{question.answer.capitalize()}.",
                }
    return {f"{EVAL}/gqa/data/testdev_balanced_questions.json": json.dumps(questions)}


def textvqa(pictures: Sequence[DescribedImage]) -> dict[str, str]:
    """TextVQA's val file, with the world's ordinary questions: there is no text in its pictures."""
    rows: list[dict[str, Any]] = []
    for picture in pictures:
        for question in picture.questions:
            rows.append(
                {
                    "question": question.text,
                    "image_id": open_images_name(picture.image_id).removesuffix(".jpg"),
                    "image_classes": [],
                    "flickr_original_url": "",
                    "flickr_300k_url": "",
                    "image_width": IMAGE_SIZE,
                    "image_height": IMAGE_SIZE,
                    "answers": [question.answer] * _NUM_ANNOTATORS,
                    "question_tokens": question.text.lower().rstrip("?").replace(",", "").split(),
                    "question_id": len(rows) + 1,
                    "set_name": "val",
                }
            )
    content = {"dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.5.1", "data": rows}
    return {f"{EVAL}/textvqa/TextVQA_0.5.1_val.json": json.dumps(content)}


def vizwiz_name(image_id: int) -> str:
    """File name of an image of VizWiz' val split."""
    return f"VizWiz_val_{image_id:08d}.jpg"


def vizwiz(pictures: Sequence[DescribedImage]) -> dict[str, str]:
    """VizWiz' val file: one question for each picture, as it has. All can be answered."""
    rows = [
        {
            "image": vizwiz_name(picture.image_id),
            "question": picture.questions[0].text,
            "answers": _annotators(picture.questions[0].answer),
            "answer_type": _answer_type(picture.questions[0].answer),
            "answerable": 1,
        }
        for picture in pictures
    ]
    return {"Annotations/val.json": json.dumps(rows)}


def coco_caption(pictures: Sequence[DescribedImage]) -> dict[str, str]:
    """COCO's captions of val2014, five for each picture."""
    images = [
        {
            "license": 1,
            "file_name": coco_name(picture.image_id),
            "coco_url": "",
            "height": IMAGE_SIZE,
            "width": IMAGE_SIZE,
            "date_captured": "",
            "flickr_url": "",
            "id": picture.image_id,
        }
        for picture in pictures
    ]
    return {f"{EVAL}/coco_caption/captions_val2014.json": _captions(images, pictures, per_image=5)}


def nocaps(pictures: Sequence[DescribedImage]) -> dict[str, str]:
    """NoCaps' val file, ten captions for each picture. The number of objects, 2, 3 or 4, stands in for the domain."""
    domains = dict(zip(range(MIN_OBJECTS, MAX_OBJECTS + 1), _DOMAINS, strict=True))
    images = [
        {
            "license": 0,
            "file_name": open_images_name(picture.image_id),
            "coco_url": "",
            "open_images_id": open_images_name(picture.image_id).removesuffix(".jpg"),
            "width": IMAGE_SIZE,
            "height": IMAGE_SIZE,
            "date_captured": "",
            "id": picture.image_id,
            "domain": domains[len(picture.objects)],
        }
        for picture in pictures
    ]
    return {f"{EVAL}/nocaps/nocaps_val_4500_captions.json": _captions(images, pictures, per_image=10)}


def _captions(images: list[dict[str, Any]], pictures: Sequence[DescribedImage], per_image: int) -> str:
    texts = [(picture.image_id, text) for picture in pictures for text in picture.captions[:per_image]]
    annotations = [{"image_id": image, "id": k, "caption": text} for k, (image, text) in enumerate(texts, start=1)]
    return json.dumps({"info": _INFO, "images": images, "licenses": [], "annotations": annotations})


def _annotators(answer: str, ids: bool = False) -> list[dict[str, Any]]:
    entry = {"answer": answer, "answer_confidence": "yes"}
    return [entry | ({"answer_id": k} if ids else {}) for k in range(1, _NUM_ANNOTATORS + 1)]


def _answer_type(answer: str) -> str:
    return "yes/no" if answer in ("yes", "no") else "number" if answer.isdecimal() else "other"


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
