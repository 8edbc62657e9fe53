"""The miniature world as files: PNG pictures and LLaVA JSON, like any user's data.

    out_dir/images/000000.png ...   image fields are relative to out_dir/images
    out_dir/dataset.json            what was written; it is there only when all the rest is

train:    pretrain.json             LLaVA JSON, one caption per picture
          finetune.json             LLaVA JSON, one conversation of several questions per picture
          statements.jsonl          {image, caption, label, relation}, as VSR's
heldout:  questions.jsonl           {question_id, image, text, answer, family}
          statements.jsonl          {statement_id, image, text, label, relation}
          captions.jsonl            {image, caption}
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from . import language
from .render import render
from .scene import Scenes, sample, split_seeds

FORMAT = 1
DESCRIBE = "Describe the scene."
CAPTION_REQUEST = f"<image>\n{DESCRIBE}"

_BLOCK = 256
_SEED_SPAN = 1 << 32  # worlds of different data set seeds lie this far apart in the list of scene seeds
_MOST_SEEDS = 1 << 24


def write_dataset(
    out_dir: str | os.PathLike[str],
    split: str,
    num_scenes: int,
    seed: int = 0,
    questions_per_scene: int = 12,
    all_tasks: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Render scenes and write them with their texts; the folder appears whole or not at all.

    The same arguments give the same bytes. Train and held-out scenes are disjoint by content, and scenes of different
    seeds are different scenes.

    Args:
        out_dir: the folder to write; an earlier data set there is replaced, anything else is left alone.
        split: `train` or `heldout`.
        num_scenes: how many pictures.
        seed: which part of the endless world, and the draw of the texts.
        questions_per_scene: at most so many turns per conversation (train), at most 20; held-out scenes get at most
            one question of each family.
        all_tasks: a training conversation also judges statements (yes or no) and describes the scene, in places drawn
            at random: what `benchmarks` asks besides questions.
        progress: called with pictures done and pictures in all.

    Returns:
        The content of dataset.json.

    Raises:
        ValueError: unknown split, a number out of range.
        FileExistsError: `out_dir` holds something that is not a data set of this function.
    """
    if not 1 <= questions_per_scene <= 20:
        raise ValueError(f"questions_per_scene must be 1 to 20, got {questions_per_scene}")
    seeds = scene_seeds(split, num_scenes, seed)
    with whole_folder(out_dir, "dataset.json") as working:
        text_options = {"per_scene": questions_per_scene, "all_tasks": all_tasks}
        return _write(working, split, seeds, seed, text_options, progress or (lambda done, total: None))


def scene_seeds(split: str, num_scenes: int, seed: int) -> np.ndarray:
    """(num_scenes,) seeds of the scenes of one data set; those of different `seed` are different scenes.

    Raises:
        ValueError: unknown split, a number out of range.
    """
    if num_scenes < 1 or not 0 <= seed < _MOST_SEEDS:
        raise ValueError(
            f"num_scenes must be at least 1 and seed 0 to 2**24 - 1, got num_scenes={num_scenes} and seed={seed}"
        )
    return split_seeds(split, num_scenes, start=seed * _SEED_SPAN)


@contextlib.contextmanager
def whole_folder(out_dir: str | os.PathLike[str], content: str) -> Iterator[Path]:
    """Give a folder to write into, which takes the place of `out_dir` when all went well; else nothing changes.

    Args:
        out_dir: the folder to make; an earlier one that this made is replaced.
        content: name of the file that says what was written and shows that the folder may be replaced.

    Raises:
        FileExistsError: `out_dir` holds something and not that file.
    """
    out_dir = Path(out_dir)
    if out_dir.is_file() or (out_dir.is_dir() and any(out_dir.iterdir()) and not (out_dir / content).is_file()):
        raise FileExistsError(f"{out_dir} exists and is not a miniature data set; name another folder or remove it")
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}-", dir=out_dir.parent))
    try:
        working.chmod(0o755)
        yield working
        if out_dir.is_dir():
            shutil.rmtree(out_dir)
        os.replace(working, out_dir)
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _write(
    folder: Path, split: str, seeds: np.ndarray, seed: int, text_options: dict, progress: Callable[[int, int], None]
) -> dict:
    (folder / "images").mkdir()
    files: dict[str, list[dict]] = {}
    for start in range(0, len(seeds), _BLOCK):
        scenes = sample(seeds[start : start + _BLOCK])
        for i, rgb in enumerate(render(scenes).rgb):
            image = f"{start + i:06d}.png"
            Image.fromarray(rgb).save(folder / "images" / image, compress_level=1)
            # texts depend on the data set's seed and the scene alone, not on how many scenes there are
            rng = np.random.default_rng([seed, int(scenes.seed[i])])
            train = split == "train"
            texts = (
                _train_texts(scenes, i, image, rng, **text_options) if train else _heldout_texts(scenes, i, image, rng)
            )
            for name, rows in texts.items():
                files.setdefault(name, []).extend(rows)
        progress(min(start + _BLOCK, len(seeds)), len(seeds))
    for name, rows in files.items():
        _write_rows(folder / name, rows)
    content = {
        "format": FORMAT,
        "split": split,
        "num_scenes": len(seeds),
        "seed": seed,
        "questions_per_scene": text_options["per_scene"],
        "all_tasks": text_options["all_tasks"],
        "files": {name: len(rows) for name, rows in files.items()},
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=2) + "\n")
    return content


def _train_texts(
    scenes: Scenes, i: int, image: str, rng: np.random.Generator, per_scene: int, all_tasks: bool
) -> dict[str, list[dict]]:
    stem = image.removesuffix(".png")
    caption = _sample(f"caption-{stem}", image, [(CAPTION_REQUEST, language.captions(scenes, i, rng))])
    pairs = [(item.text, item.answer) for item in language.questions(scenes, i, rng, per_family=2)[:per_scene]]
    if all_tasks:
        pairs += [
            (statement.text, "yes" if statement.label else "no") for statement in language.statements(scenes, i, rng)
        ]
        pairs += [(DESCRIBE, language.captions(scenes, i, rng))]
        pairs = [pairs[k] for k in rng.permutation(len(pairs))]
    turns = [(("" if turn else "<image>\n") + text, answer) for turn, (text, answer) in enumerate(pairs)]
    return {
        "pretrain.json": [caption],
        "finetune.json": [_sample(f"questions-{stem}", image, turns)],
        "statements.jsonl": _statements(scenes, i, image, rng),
    }


def _statements(scenes: Scenes, i: int, image: str, rng: np.random.Generator) -> list[dict]:
    """In VSR's format."""
    return [
        {"image": image, "caption": statement.text, "label": int(statement.label), "relation": statement.relation}
        for statement in language.statements(scenes, i, rng)
    ]


def _heldout_texts(scenes: Scenes, i: int, image: str, rng: np.random.Generator) -> dict[str, list[dict]]:
    stem = image.removesuffix(".png")
    scene_questions, scene_statements = (
        language.questions(scenes, i, rng, per_family=1),
        language.statements(scenes, i, rng),
    )
    return {
        "questions.jsonl": [
            {"question_id": f"{stem}-{k}", "image": image, "text": q.text, "answer": q.answer, "family": q.family}
            for k, q in enumerate(scene_questions)
        ],
        "statements.jsonl": [
            {"statement_id": f"{stem}-{k}", "image": image, "text": s.text, "label": s.label, "relation": s.relation}
            for k, s in enumerate(scene_statements)
        ],
        "captions.jsonl": [{"image": image, "caption": language.captions(scenes, i, rng)}],
    }


def _sample(sample_id: str, image: str, turns: Iterable[tuple[str, str]]) -> dict:
    conversation = [
        ({"from": "human", "value": question}, {"from": "gpt", "value": answer}) for question, answer in turns
    ]
    return {"id": sample_id, "image": image, "conversations": [turn for pair in conversation for turn in pair]}


def _write_rows(path: Path, rows: list[dict]) -> None:
    lines = [json.dumps(row) for row in rows]
    text = "\n".join(lines) + "\n" if path.suffix == ".jsonl" else "[\n" + ",\n".join(lines) + "\n]\n"
    path.write_text(text)
