"""The base model of the miniature: trained by the script's own code, asked for captions, statements and answers."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tove_lvlm.data.conversations import FALSE, STATEMENT, TRUE
from tove_lvlm.eval.families import read_questions, score
from tove_lvlm.inference.batching import DecodingConfig
from tove_lvlm.inference.chat import Chat, answer
from tove_lvlm.provenance import cpu_has_fast_bf16
from tove_lvlm.world.scene import COLORS, SHAPES

VARIANTS = ("clip", "tove")
BATCH = 64
_OBJECT = re.compile(rf"({'|'.join(COLORS)}) ({'|'.join(SHAPES)})(?: (near|far|halfway))?")
PARTS = ("objects", "colors", "shapes", "distances")


def train(variant: str, seed: int, world: Path, folder: Path, steps: int) -> dict:
    """Run `scripts/pretrain_base.py` in this process.

    Args:
        variant: `clip` or `tove`.
        seed: Of initialisation and data order.
        world: Folder with `train/`.
        folder: Where the model goes.
        steps: Optimizer steps.

    Returns:
        Last logged losses.
    """
    from tove_lvlm.recipes.encoder_decoder import PRETRAIN
    from tove_lvlm.train.launch import main

    from .arguments import ROOT

    files = ("pretrain.json", "finetune.json", "statements.jsonl")
    options = [
        f"model.vision_tower={variant}",
        *(f"data.mix.{number}.files=[{world / 'train' / name}]" for number, name in enumerate(files)),
        *(f"data.mix.{number}.image_folder={world / 'train' / 'images'}" for number in range(len(files))),
        f"train.output_dir={folder}",
        f"train.seed={seed}",
        f"train.max_steps={steps}",
        f"train.save_steps={steps}",
        *([] if cpu_has_fast_bf16() else ["train.bf16=false"]),
    ]
    cfg_path = ROOT / "projects" / "miniature" / "pretrain_base.yaml"
    code = main(PRETRAIN, ["--cfg-path", str(cfg_path), "--options", *options])
    if code != 0:
        raise RuntimeError(f"{variant} ended with exit code {code}")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {"loss": sum(line["loss"] for line in lines[-5:]) / len(lines[-5:]), "steps": lines[-1]["step"]}


def evaluate(model: Path, world: Path, detached: Sequence[str] = ()) -> dict[str, Any]:
    """Percent right of held-out questions and statements, and what captions recall.

    Args:
        model: A model's folder.
        world: Folder with `heldout/`.
        detached: Experts to take out first.
    """
    talk = Chat.load(model, device="cpu")
    if detached:
        talk.model.encoder.detach(*detached)
    held_out = world / "heldout"
    questions = read_questions(held_out / "questions.jsonl")
    asked = _ask(talk, [held_out / "images" / q.image for q in questions], [q.text for q in questions], tokens=8)
    scored = score(questions, asked)
    captions = _lines(held_out / "captions.jsonl")
    pictures = [held_out / "images" / row["image"] for row in captions]
    said = _ask(talk, pictures, [""] * len(pictures), tokens=80, beams=3)
    references = [row["caption"] for row in captions]
    return {
        "vqa": 100 * scored["overall"]["accuracy"],
        "families": {name: 100 * part["accuracy"] for name, part in scored["families"].items()},
        **statements(talk, held_out),
        "recall": recall(said, references),
        "cider": cider(said, references),
        "captions": dict(zip([row["image"] for row in captions[:5]], said[:5], strict=True)),
        "detached": list(detached),
    }


def statements(talk: Chat, held_out: Path) -> dict[str, Any]:
    """Percent right by the likelihoods of true and false, overall and by relation."""
    from tove_lvlm.inference import responder_of
    from tove_lvlm.inference.batching import PixelReader

    responder = responder_of(talk.model, talk.processor)
    read = PixelReader(talk.processor.image_processor, talk.image_aspect_ratio)
    hits: dict[str, list[bool]] = {}
    rows = _lines(held_out / "statements.jsonl")
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        prompts = [STATEMENT.format(statement=row["text"]) for row in part]
        pixels = [read(held_out / "images" / row["image"]) for row in part]
        for row, values in zip(
            part, responder.log_likelihoods(prompts, [[TRUE, FALSE]] * len(part), pixels), strict=True
        ):
            hits.setdefault(row["relation"], []).append((values[0] > values[1]) == row["label"])
    every = [hit for of_relation in hits.values() for hit in of_relation]
    by_relation = {relation: 100 * sum(found) / len(found) for relation, found in hits.items()}
    return {"vsr": 100 * sum(every) / len(every), "vsr_n": len(every), "vsr_by_relation": by_relation}


def recall(said: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Percent of a reference's objects that a caption names, each with its color and shape; of its colors; of its
    shapes; and, of the objects that are named, how many with the right distance.

    Args:
        said: Captions.
        references: The scenes' own.
    """
    found = dict.fromkeys(PARTS, 0)
    there = dict.fromkeys(PARTS, 0)
    for caption, reference in zip(said, references, strict=True):
        # The comparison at a caption's end repeats two of the objects.
        given, right = (_OBJECT.findall(text.split(". ")[0]) for text in (caption, reference))
        distance_of = {(color, shape): distance for color, shape, distance in given}
        for color, shape, distance in right:
            there["objects"] += 1
            if (color, shape) in distance_of:
                found["objects"] += 1
                there["distances"] += 1
                found["distances"] += distance_of[color, shape] == distance
        for part, position in (("colors", 0), ("shapes", 1)):
            wanted, has = {thing[position] for thing in right}, {thing[position] for thing in given}
            there[part] += len(wanted)
            found[part] += len(wanted & has)
    return {part: 100 * found[part] / max(1, there[part]) for part in PARTS}


def cider(said: Sequence[str], references: Sequence[str]) -> float | None:
    """CIDEr as published (times 100), None where its tokenizer's Java or pycocoevalcap is absent."""
    from tove_lvlm.config import UserError
    from tove_lvlm.eval.metrics.caption import score_captions

    try:
        return 100 * score_captions(said, [[reference] for reference in references]).metrics["CIDEr"]
    except (UserError, ImportError) as error:
        print(f"no CIDEr: {error}")
        return None


def _ask(talk: Chat, images: Sequence[Path], questions: Sequence[str], tokens: int, beams: int = 1) -> list[str]:
    decoding = DecodingConfig(max_new_tokens=tokens, num_beams=beams)
    ratio = talk.image_aspect_ratio
    return answer(talk.model, talk.processor, images, questions, BATCH, image_aspect_ratio=ratio, decoding=decoding)


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
