"""The miniature world's own POPE, VSR, VQA and caption benchmarks, in the official files and folders.

    playground/data/eval/{pope,vsr,gqa,textvqa,coco_caption,nocaps}    as LLaVA lays benchmarks out
    v2_*_val2014_*.json, val2014; Annotations/val.json, val            VQAv2 and VizWiz with labels, as their sites do
    benchmarks.json                     what was written; it is there only when all the rest is

All are about the same held-out scenes as `write_dataset`'s of the same seed. Questions are in the world's own words
("Is there a red sphere?", where POPE says "... in the image?"), and `ASKED` is how a model of the miniature is to be
asked: it has learnt one-word answers to such questions and no prompt around them, and answers nothing sensible to the
tasks' own. Statements (VSR) and captions it knows when its training data was written with `all_tasks`, as the demo's
is. "True" and "False" (`vsr_likelihood`) are no words of the world.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from . import benchmark_files, language
from .benchmark_files import EVAL, DescribedImage, coco_name, open_images_name, vizwiz_name
from .dataset import DESCRIBE, scene_seeds, whole_folder
from .render import render
from .scene import Scenes, sample

FORMAT = 1
ASKED = {
    **dict.fromkeys(("pope", "vqav2", "gqa", "textvqa", "vizwiz", "vsr", "vsr_likelihood"), "{question}"),
    **dict.fromkeys(("coco_caption", "nocaps"), DESCRIBE),
}
"""Task -> the prompt for models of the miniature, in place of the task's own."""

_BLOCK = 256
_NUM_CAPTIONS = 10
_IMAGES: dict[str, Callable[[int], str]] = {
    f"{EVAL}/pope/val2014": coco_name,
    f"{EVAL}/coco_caption/val2014": coco_name,
    "val2014": coco_name,
    f"{EVAL}/vsr/images": "{:012d}.jpg".format,
    f"{EVAL}/gqa/data/images": "n{}.jpg".format,
    f"{EVAL}/textvqa/train_images": open_images_name,
    f"{EVAL}/nocaps/val": open_images_name,
    "val": vizwiz_name,
}


def write_benchmarks(folder: str | os.PathLike[str], num_scenes: int, seed: int = 0) -> dict:
    """Render held-out scenes and write them as benchmarks; the folder appears whole or not at all.

    The same arguments give the same bytes. Each picture is rendered once and stored under each benchmark's own name, as
    a JPEG of the best quality.

    Args:
        folder: the folder to write, the root of all layouts; earlier benchmarks there are replaced.
        num_scenes: how many pictures.
        seed: which part of the endless world, and the draw of the texts.

    Returns:
        The content of benchmarks.json.

    Raises:
        ValueError: a number out of range.
        FileExistsError: `folder` holds something that this function did not write.
    """
    seeds = scene_seeds("heldout", num_scenes, seed)
    with whole_folder(folder, "benchmarks.json") as working:
        pictures: list[DescribedImage] = []
        for name in _IMAGES:
            (working / name).mkdir(parents=True)
        for start in range(0, num_scenes, _BLOCK):
            scenes = sample(seeds[start : start + _BLOCK])
            for i, rgb in enumerate(render(scenes).rgb):
                pictures.append(_describe(scenes, i, start + i + 1, np.random.default_rng([seed, int(scenes.seed[i])])))
                _save(rgb, working, start + i + 1)
        files = benchmark_files.pope(pictures, np.random.default_rng(seed))
        for write in ("vsr", "vqav2", "gqa", "textvqa", "vizwiz", "coco_caption", "nocaps"):
            files |= getattr(benchmark_files, write)(pictures)
        for name, text in files.items():
            path = working / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        content = {"format": FORMAT, "num_scenes": num_scenes, "seed": seed, "asked": ASKED, "files": sorted(files)}
        (working / "benchmarks.json").write_text(json.dumps(content, indent=2) + "\n")
    return content


def _describe(scenes: Scenes, i: int, image_id: int, rng: np.random.Generator) -> DescribedImage:
    names = [f"{thing.color} {thing.shape}" for thing in language.things(scenes, i)]
    return DescribedImage(
        image_id=image_id,
        questions=language.questions(scenes, i, rng),
        statements=language.statements(scenes, i, rng),
        captions=[language.captions(scenes, i, rng) for _ in range(_NUM_CAPTIONS)],
        objects=[str(name) for name in rng.permutation(names)],
    )


def _save(rgb: np.ndarray, folder: Path, image_id: int) -> None:
    encoded = io.BytesIO()
    Image.fromarray(rgb).save(encoded, "JPEG", quality=100, subsampling=0)
    for name, file_name in _IMAGES.items():
        (folder / name / file_name(image_id)).write_bytes(encoded.getvalue())
