"""The base model of the miniature: trained by the script's own code, taken apart, asked for captions and answers."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tove_lvlm.eval.families import read_questions, score
from tove_lvlm.inference.batching import DecodingConfig
from tove_lvlm.inference.chat import Chat, answer
from tove_lvlm.provenance import commit, hardware

from .captions import BATCH, read_lines, score_captions
from .plan import row_folder
from .pool import Job
from .rows import BASE, MAIN, MATCHED, Row, clip_only
from .surgery import merge
from .training import train, write_first_scenes

HALF = ("normals", "edges")
"""Detached in the variant `detached`: those that go first from the miniature's ToVE_Vicuna (docs/results.md)."""
SHARES = {"1/100": 1 / 100, "1/10": 1 / 10}
"""Shares of the training scenes; the whole is the main rows' own."""
_BASE: dict[str, Any] = {"stages": BASE, "options": ("train.bf16=false",)}
"""Of every row; in float32, so that rows that were trained on different processors can be compared."""
ROWS = [
    *(replace(row, **_BASE) for row in (*MAIN, MATCHED)),
    *(
        row
        for share in SHARES
        for row in (
            clip_only(f"clip_{share}", f"CLIP-only, {share} of the data", "data", **_BASE),
            Row(id=f"tove_{share}", label=f"ToVE, {share} of the data", group="data", **_BASE),
        )
    ),
]
"""What is trained."""
DERIVED = ("detached", "merged")
"""What is made of `tove`."""


def write_world(folder: Path, scenes: dict[str, int]) -> Path:
    """Training scenes, the first of them as smaller data sets, held-out scenes, and the same as benchmarks' files.

    Args:
        folder: Where; what is there is not written again.
        scenes: `train`, `heldout`, and `pope`: how many have POPE's questions.
    """
    from tove_lvlm.world.benchmarks import write_benchmarks
    from tove_lvlm.world.dataset import write_dataset

    for split in ("train", "heldout"):
        if not (folder / split / "dataset.json").is_file():
            write_dataset(folder / split, split, scenes[split])
    write_first_scenes(folder, {scenes_of(row, scenes["train"]) for row in ROWS}, BASE)
    if not (folder / "benchmarks" / "benchmarks.json").is_file():
        write_benchmarks(folder / "benchmarks", scenes["pope"])
    return folder


def scenes_of(row: Row, every: int) -> int:
    """How many training scenes a row has.

    Args:
        row: Of `ROWS`.
        every: How many there are.
    """
    return max(1, round(next((part for share, part in SHARES.items() if row.id.endswith(f"_{share}")), 1) * every))


def base_jobs(
    ids: Sequence[str], seed: int, world: Path, output: Path, steps: Mapping[str, int], scenes: int
) -> list[Job]:
    """Training, surgery and scores of some rows.

    Args:
        ids: Of `ROWS` and `DERIVED`.
        seed: Of initialisation and data order.
        world: From `write_world`.
        output: The benchmark's folder.
        steps: `train` and `merge`.
        scenes: How many training scenes there are.
    """
    jobs: dict[Path, Job] = {}

    def add(result: Path, work, *needs: Path) -> Path:
        jobs[result] = Job(result=result, work=work, needs=needs)
        return result

    made_by = {"commit": commit(), "hardware": hardware()}
    row_of = {row.id: replace(row, scenes=scenes_of(row, scenes)) for row in ROWS}
    for row_id in ids:
        folder = row_folder(output, seed, row_id)
        trained = row_folder(output, seed, row_id if row_id in row_of else "tove")
        row = row_of.get(row_id, row_of["tove"])
        work = functools.partial(train, BASE[0], row, seed, world, trained, {BASE[0]: steps["train"]})
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
    captions = score_captions(talk, held_out)
    return {
        **{name: captions[name] for name in ("cider", "recall", "captions")},
        **statements(talk, held_out),
        "pope_f1": pope(model, world / "benchmarks"),
        "vqa": 100 * scored["overall"]["accuracy"],
        "families": {name: 100 * part["accuracy"] for name, part in scored["families"].items()},
        **made_by,
    }


def statements(talk: Chat, held_out: Path) -> dict[str, Any]:
    """Percent right by the likelihoods of true and false, overall and by relation."""
    from tove_lvlm.data.turns import FALSE, STATEMENT, TRUE
    from tove_lvlm.inference import responder_of
    from tove_lvlm.inference.batching import PixelReader

    responder = responder_of(talk.model, talk.processor)
    read = PixelReader(talk.processor.image_processor, talk.image_aspect_ratio)
    hits: dict[str, list[bool]] = {}
    rows = read_lines(held_out / "statements.jsonl")
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


def _ask(talk: Chat, images: Sequence[Path], questions: Sequence[str], tokens: int) -> list[str]:
    decoding = DecodingConfig(max_new_tokens=tokens)
    ratio = talk.image_aspect_ratio
    return answer(talk.model, talk.processor, images, questions, BATCH, image_aspect_ratio=ratio, decoding=decoding)
