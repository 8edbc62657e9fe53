"""Questions about the fetched pictures, and which of them are held out.

| family   | pictures                    | labels                                                        |
|---|---|---|
| naming   | stamps, clipart             | by people: the one concept that title, keywords, folders name |
| presence | the same                    | by people, yes; no for a concept that none of them names      |
| easy_vqa | easy-VQA's                  | by its program, which drew the pictures                       |
| clothing | Fashion-MNIST's photographs | by people (Zalando's catalogue)                               |

A stamp or clipart is held out by a hash of its title, so that pictures of one title are on one side. The other two keep
their own split into train and test.
"""

import gzip
import hashlib
import json
import random
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .concepts import NAMES, concepts, presence_question
from .packaged_pictures import MAX_PIXELS, Picture, clipart, stamps

SEED = 0
HELD_OUT = 0.25
PER_CONCEPT = 80
"""Pictures of one concept at most."""
NUM_CHOICES = 10
EASY_VQA, EASY_VQA_QUESTIONS = {"train": 200, "test": 80}, {"train": 2, "test": 2}
"""Pictures, and questions about each."""
CLOTHING = {"train": 200, "t10k": 100}
GARMENTS = (
    "t-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
"""Fashion-MNIST's classes, in its order."""
SIDE, GARMENT_SIDE = 320, 112
"""Pixels of the longer side of a written picture."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question about a picture."""

    family: str
    text: str
    answer: str
    choices: tuple[str, ...]
    """Answers among which the right one is to be found."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A picture with what is asked about it."""

    name: str
    """Of the picture, without an ending; its own among all."""
    image: Image.Image
    is_held_out: bool
    caption: str | None
    """By whoever made the picture."""
    questions: tuple[Question, ...]


def all_pictures(root: Path) -> list[Asked]:
    """Everything, in a fixed order.

    Args:
        root: Folder of the packages.
    """
    return [*_drawn(root), *_easy_vqa(root), *_clothing(root)]


# ---- stamps and clipart ----


def _drawn(root: Path) -> list[Asked]:
    found: list[tuple[Picture, set[str]]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of those that are left out here
        for picture in [*stamps(root), *clipart(root)]:
            with Image.open(picture.file) as image:
                if image.width * image.height <= MAX_PIXELS:
                    found.append((picture, concepts((picture.title, *picture.words))))
    by_concept = defaultdict(list)
    for picture, names in found:
        if len(names) == 1:
            by_concept[next(iter(names))].append(picture)
    chosen = {
        picture.name: concept
        for concept, pictures in by_concept.items()
        for picture in sorted(pictures, key=lambda picture: _hash(picture.name))[:PER_CONCEPT]
    }
    asked, seen = [], set()
    for picture, names in found:
        is_caption = picture.source == "stamps" and len(picture.title.split()) > 1
        if picture.name in seen or (picture.name not in chosen and not is_caption):
            continue
        seen.add(picture.name)
        is_held_out = _hash(title_key(picture.title) or picture.name) < HELD_OUT
        questions = _about(picture.name, chosen[picture.name], names) if picture.name in chosen else ()
        asked.append(
            Asked(
                name=picture.name,
                image=_on_white(picture.file, SIDE),
                is_held_out=is_held_out,
                caption=picture.title if is_caption else None,
                questions=questions if is_held_out else questions[:2],  # to learn from, one of yes and no
            )
        )
    return asked


def title_key(title: str) -> str:
    """A title without numbers and signs: `Apple 2` is `apple`."""
    return " ".join(re.findall(r"[^\W\d_]+", title.lower()))


def _about(name: str, concept: str, names: set[str]) -> tuple[Question, ...]:
    draw = random.Random(f"{SEED}:{name}")
    others = [other for other in NAMES if other not in names]
    choices = [concept, *draw.sample(others, NUM_CHOICES - 1)]
    draw.shuffle(choices)
    naming = Question(family="naming", text="What is this?", answer=concept, choices=tuple(choices))
    answers = {presence_question(concept): "yes", presence_question(draw.choice(others)): "no"}
    presence = [
        Question(family="presence", text=text, answer=answer, choices=("yes", "no")) for text, answer in answers.items()
    ]
    draw.shuffle(presence)
    return naming, *presence


# ---- the others ----


def _easy_vqa(root: Path) -> list[Asked]:
    folder = root / "easy-vqa" / "easy_vqa" / "data"
    answers = tuple((folder / "answers.txt").read_text(encoding="utf-8").split())
    asked = []
    for split, number in EASY_VQA.items():
        by_picture = defaultdict(list)
        for text, answer, picture in json.loads((folder / split / "questions.json").read_text(encoding="utf-8")):
            by_picture[picture].append(Question(family="easy_vqa", text=text, answer=answer, choices=answers))
        for picture in _some(sorted(by_picture), number, split):
            questions = _some(by_picture[picture], EASY_VQA_QUESTIONS[split], f"{split}:{picture}")
            with Image.open(folder / split / "images" / f"{picture}.png") as image:
                asked.append(
                    Asked(
                        name=f"easy-{split}-{picture}",
                        image=image.convert("RGB"),
                        is_held_out=split == "test",
                        caption=None,
                        questions=tuple(questions),
                    )
                )
    return asked


def _clothing(root: Path) -> list[Asked]:
    folder = root / "dataset-fashion-mnist" / "usr" / "share" / "datasets" / "fashion-mnist"
    asked = []
    for split, number in CLOTHING.items():
        images, labels = (_idx(folder / f"{split}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
        for index in _some(range(len(labels)), number, split):
            image = Image.fromarray(images[index]).convert("RGB").resize((GARMENT_SIDE, GARMENT_SIDE), Image.BICUBIC)
            question = Question(
                family="clothing",
                text="Which piece of clothing is this?",
                answer=GARMENTS[labels[index]],
                choices=GARMENTS,
            )
            asked.append(
                Asked(
                    name=f"fashion-{split}-{index}",
                    image=image,
                    is_held_out=split == "t10k",
                    caption=None,
                    questions=(question,),
                )
            )
    return asked


def _idx(file: Path) -> np.ndarray:
    """An array of MNIST's file format, of bytes."""
    content = gzip.decompress(file.read_bytes())
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


# ---- parts ----


def _some(items: Sequence, number: int, key: str) -> Iterable:
    return random.Random(f"{SEED}:{key}").sample(items, min(number, len(items)))


def _hash(text: str) -> float:
    """In [0, 1)."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8


def _on_white(file: Path, side: int) -> Image.Image:
    with Image.open(file) as image:
        layer = image.convert("RGBA")
    layer.thumbnail((side, side), Image.LANCZOS)
    white = Image.new("RGBA", layer.size, "white")
    white.alpha_composite(layer)
    return white.convert("RGB")
