"""The base model of the miniature: trained by the script's own code, taken apart, asked for captions and answers."""

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tove_lvlm.eval.families import read_questions, score
from tove_lvlm.inference.batching import DecodingConfig
from tove_lvlm.inference.chat import Chat, answer
from tove_lvlm.provenance import commit, hardware
from tove_lvlm.world.scene import COLORS, SHAPES

from .plan import row_folder
from .pool import Job
from .rows import MAIN, MATCHED, Row, clip_only
from .surgery import merge
from .training import cache_options, write_tower

HALF = ("normals", "edges")
"""Detached in the variant `detached`: those that go first from the miniature's ToVE_Vicuna (docs/results.md)."""
SHARES = {"1/100": 1 / 100, "1/10": 1 / 10}
"""Shares of the training scenes; the whole is the main rows' own."""
ROWS = [
    *MAIN,
    MATCHED,
    *(
        row
        for share in SHARES
        for row in (
            clip_only(f"clip_{share}", f"CLIP-only, {share} of the data", "data"),
            Row(id=f"tove_{share}", label=f"ToVE, {share} of the data", group="data"),
        )
    ),
]
"""What is trained."""
DERIVED = ("detached", "merged")
"""What is made of `tove`."""
BATCH = 64
_OBJECT = re.compile(rf"({'|'.join(COLORS)}) ({'|'.join(SHAPES)})(?: (near|far|halfway))?")
PARTS = ("objects", "colors", "shapes", "distances")


def write_world(folder: Path, scenes: dict[str, int]) -> Path:
    """Training scenes, the first of them as smaller data sets, held-out scenes, and the same as benchmarks' files.

    Args:
        folder: Where; what is there is not written again.
        scenes: `train`, `heldout`, and `pope`: how many have POPE's questions.
    """
    from tove_lvlm.world.benchmarks import write_benchmarks
    from tove_lvlm.world.dataset import write_dataset

    sizes = {train_folder(folder, share): max(1, round(part * scenes["train"])) for share, part in SHARES.items()}
    sizes |= {folder / "train": scenes["train"], folder / "heldout": scenes["heldout"]}
    for path, num in sizes.items():
        if not (path / "dataset.json").is_file():
            write_dataset(path, "heldout" if path.name == "heldout" else "train", num)
    if not (folder / "benchmarks" / "benchmarks.json").is_file():
        write_benchmarks(folder / "benchmarks", scenes["pope"])
    return folder


def share_of(row: Row) -> str:
    """Share of the training scenes that a row has, a key of `SHARES` or 1."""
    return next((share for share in SHARES if row.id.endswith(f"_{share}")), "1")


def train_folder(world: Path, share: str) -> Path:
    """Training data of a share of the scenes."""
    return world / ("train" if share == "1" else f"train_{share.replace('/', '-')}")


def base_jobs(ids: Sequence[str], seed: int, world: Path, output: Path, steps: dict[str, int]) -> list[Job]:
    """Training, surgery and scores of some rows.

    Args:
        ids: Of `ROWS` and `DERIVED`.
        seed: Of initialisation and data order.
        world: From `write_world`.
        output: The benchmark's folder.
        steps: `train` and `merge`.
    """
    jobs: dict[Path, Job] = {}

    def add(result: Path, work, *needs: Path) -> Path:
        jobs[result] = Job(result=result, work=work, needs=needs)
        return result

    made_by = {"commit": commit(), "hardware": hardware()}
    row_of = {row.id: row for row in ROWS}
    for row_id in ids:
        folder = row_folder(output, seed, row_id)
        trained = row_folder(output, seed, row_id if row_id in row_of else "tove")
        row = row_of.get(row_id, row_of["tove"])
        work = functools.partial(train, row, seed, world, trained, steps["train"])
        ready, model = add(trained / "trained.json", work), trained / "model"
        if row_id == "detached":
            ready = add(folder / "made.json", functools.partial(detach_half, model, folder / "model"), ready)
            model = folder / "model"
        elif row_id == "merged":
            images = [f"data.images=[{world / 'train' / 'images'}]"]
            work = functools.partial(merge, model, images, world, folder / "merge", seed, steps["merge"])
            ready, model = add(folder / "made.json", work, ready), folder / "merge" / "lvlm"
        add(folder / "score.json", functools.partial(evaluate, model, world, made_by), ready)
    return list(jobs.values())


def train(row: Row, seed: int, world: Path, folder: Path, steps: int) -> dict:
    """Run `scripts/pretrain_base.py` in this process.

    Args:
        row: What is trained.
        seed: Of initialisation and data order.
        world: From `write_world`.
        folder: The row's; the model goes to `folder/model`.
        steps: Optimizer steps.

    Returns:
        Last logged losses.
    """
    from tove_lvlm.recipes.encoder_decoder import PRETRAIN
    from tove_lvlm.train.launch import main

    from .arguments import ROOT

    data, output = train_folder(world, share_of(row)), folder / "model"
    files = ("pretrain.json", "finetune.json", "statements.jsonl")
    options = [
        f"model.vision_tower={row.vision_tower}",
        f"model.tower={write_tower(row, folder)}",
        *(f"data.mix.{number}.files=[{data / name}]" for number, name in enumerate(files)),
        *(f"data.mix.{number}.image_folder={data / 'images'}" for number in range(len(files))),
        f"train.output_dir={output}",
        f"train.seed={seed}",
        f"train.max_steps={steps}",
        f"train.save_steps={steps}",
        *cache_options(world),
        "train.bf16=false",  # so that rows that were trained on different processors can be compared
    ]
    cfg_path = ROOT / "projects" / "miniature" / "pretrain_base.yaml"
    code = main(PRETRAIN, ["--cfg-path", str(cfg_path), "--options", *options])
    if code != 0:
        raise RuntimeError(f"{row.id} ended with exit code {code}")
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {"loss": sum(line["loss"] for line in lines[-5:]) / len(lines[-5:]), "steps": lines[-1]["step"]}


def detach_half(model: Path, output: Path) -> dict:
    """`tove detach` with the experts of `HALF`."""
    from tove_lvlm.surgery.detach import detach

    detach(model, output, experts=HALF, device="cpu", seconds=0.1)
    return {"experts": list(HALF)}


def evaluate(model: Path, world: Path, made_by: dict[str, str]) -> dict[str, Any]:
    """Percent right of held-out questions and statements, POPE's F1, and what captions recall.

    Args:
        model: A model's folder.
        world: From `write_world`.
        made_by: What else the result says.
    """
    talk = Chat.load(model, device="cpu")
    held_out = world / "heldout"
    questions = read_questions(held_out / "questions.jsonl")
    asked = _ask(talk, [held_out / "images" / q.image for q in questions], [q.text for q in questions], tokens=8)
    scored = score(questions, asked)
    captions = _lines(held_out / "captions.jsonl")
    pictures = [held_out / "images" / row["image"] for row in captions]
    said = _ask(talk, pictures, [""] * len(pictures), tokens=80, beams=3)
    references = [row["caption"] for row in captions]
    return {
        "cider": cider(said, references),
        **statements(talk, held_out),
        "pope_f1": pope(model, world / "benchmarks"),
        "vqa": 100 * scored["overall"]["accuracy"],
        "recall": recall(said, references),
        "families": {name: 100 * part["accuracy"] for name, part in scored["families"].items()},
        "captions": dict(zip([row["image"] for row in captions[:5]], said[:5], strict=True)),
        **made_by,
    }


def statements(talk: Chat, held_out: Path) -> dict[str, Any]:
    """Percent right by the likelihoods of true and false, overall and by relation."""
    from tove_lvlm.data.conversations import FALSE, STATEMENT, TRUE
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


def pope(model: Path, folder: Path) -> float:
    """POPE's F1 (times 100), the mean of its three splits, by `tove eval`'s own code."""
    from tove_lvlm.eval.ask import EvalConfig, evaluate_model
    from tove_lvlm.eval.benchmark import read_benchmark, task_class
    from tove_lvlm.eval.io.find import find

    place = find(task_class("pope"), folder)
    benchmark = read_benchmark("pope", place.labels, prompt=task_class("pope").bare_prompt)
    settings = EvalConfig(
        model=model,
        images=place.images,
        output=model.with_name(f"{model.name}-pope"),
        decoding=DecodingConfig(max_new_tokens=4),
        batch_size=BATCH,
    )
    record = evaluate_model(benchmark, settings)
    assert record is not None  # of the only rank
    return 100 * record["metrics"]["mean_f1"]


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
