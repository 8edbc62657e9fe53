"""Train one row with the real scripts' own code, and ask the trained model."""

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from tove_lvlm.config import read_yaml
from tove_lvlm.demo import PROJECT
from tove_lvlm.eval.families import FamilyQuestion, normalize, read_questions, score
from tove_lvlm.inference.chat import Chat
from tove_lvlm.provenance import commit, cpu_has_fast_bf16, hardware
from tove_lvlm.storage import save_json
from tove_lvlm.tower.recorder import find_tower

from . import (
    encoders,
    half_blind,  # noqa: F401  registers its family
)
from .comparison import pack_counts
from .gate_statistics import gate_statistics
from .rows import BASE, VICUNA, Row

SAVE_STEPS = 300
_HALF_BLIND = {"family": "half_blind", "output": "map", "channels": 1, "pretrained": "shipped:miniature/depth"}
EXTRA_EXPERTS = {
    # CLIP's own tokens, so that parameters are all that is added.
    "own_tokens": {"family": "transformers", "pretrained": "shipped:miniature/clip", "layer": -2},
    "depth_left": {**_HALF_BLIND, "sees": "left"},
    "depth_right": {**_HALF_BLIND, "sees": "right"},
}


def write_tower(row: Row, folder: Path, world: Path | None = None) -> Path:
    """The row's tower YAML: the miniature's own with the row's changes.

    Args:
        row: What is trained.
        folder: Where it goes.
        world: The data; a second base encoder lies beside it.
    """
    tower = read_yaml(PROJECT / "tower.yaml")
    if row.encoder:
        if world is None:
            raise ValueError(f"row {row.id} has a base encoder of its own, which lies beside the world")
        del tower["clip"]
        tower |= encoders.entry(world.parent, row.encoder)
    entries = {entry["name"]: entry for entry in tower["experts"]}
    entries |= {name: {"name": name, **fields} for name, fields in EXTRA_EXPERTS.items()}
    changes = dict(row.fusion)
    if changes.get("mlp_hidden") == "matched":
        changes["mlp_hidden"] = matched_hidden(tower, entries[row.experts[0]])
    tower["experts"] = [entries[name] for name in row.experts]
    tower["fusion"] = {**tower["fusion"], **changes}
    path = folder / "tower.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(tower, sort_keys=False), encoding="utf-8")
    return path


def matched_hidden(tower: Mapping[str, Any], expert: Mapping[str, Any]) -> int:
    """Hidden width with which one transfer MLP has as many parameters as the tower's whole fusion."""
    target = fusion_size(tower)
    one, two = (
        fusion_size({**tower, "experts": [expert], "fusion": {**tower["fusion"], "mlp_hidden": hidden}})
        for hidden in (1, 2)
    )
    return 1 + round((target - one) / (two - one))


def fusion_size(tower: Mapping[str, Any]) -> int:
    """Parameters of `tove_fusion` of a tower's YAML."""
    import tempfile

    import torch

    from tove_lvlm.tower.build import tower_config_from_yaml
    from tove_lvlm.tower.modeling import ToVEVisionModel

    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(dict(tower), file)
        file.flush()
        config = tower_config_from_yaml(file.name)
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in ToVEVisionModel(config).tove_fusion.parameters())


def write_first_scenes(world: Path, scenes: Collection[int], stages: Sequence[str] = VICUNA) -> None:
    """`pretrain_100.json` and so on: the training data of the first scenes alone, nested.

    Args:
        world: Folder with `train/`.
        scenes: Numbers of scenes.
        stages: What is trained; the base model has statements besides.
    """
    train = world / "train"
    for kind in VICUNA:
        missing = [num for num in scenes if not data_file(world, kind, num).is_file()]
        records = json.loads((train / f"{kind}.json").read_text(encoding="utf-8")) if missing else []
        for num in missing:
            if num > len(records):
                raise ValueError(f"{num} scenes are wanted of {train}, which has {len(records)}")
            save_json(data_file(world, kind, num), records[:num])  # one conversation a scene
    if not {*BASE} & {*stages}:
        return
    lines = (train / "statements.jsonl").read_text(encoding="utf-8").splitlines()
    pictures = [json.loads(line)["image"] for line in lines]
    for num in scenes:
        shown = {record["image"] for record in json.loads(data_file(world, "pretrain", num).read_text("utf-8"))}
        kept = [line for line, picture in zip(lines, pictures, strict=True) if picture in shown]
        statements_file(world, num).write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def data_file(world: Path, kind: str, scenes: int) -> Path:
    """Training data, `pretrain` or `finetune`, for the first so many scenes."""
    return world / "train" / f"{kind}_{scenes}.json"


def statements_file(world: Path, scenes: int) -> Path:
    """True and false statements about the first so many scenes."""
    return world / "train" / f"statements_{scenes}.jsonl"


def data_options(stage: str, world: Path, scenes: int) -> list[str]:
    """Options for a script that name a stage's data: the first so many scenes."""
    images = world / "train" / "images"
    if stage in VICUNA:
        return [f"data.train=[{data_file(world, stage, scenes)}]", f"data.image_folder={images}"]
    files = [*(data_file(world, kind, scenes) for kind in VICUNA), statements_file(world, scenes)]  # as in the YAML
    mix = [(f"files=[{file}]", f"image_folder={images}") for file in files]
    return [f"data.mix.{number}.{option}" for number, options in enumerate(mix) for option in options]


def train(
    stage: str,
    row: Row,
    seed: int,
    world: Path,
    folder: Path,
    steps: Mapping[str, int],
    rate: float = 1.0,
    budget: float = 1.0,
) -> dict:
    """Run `scripts/pretrain_projector.py`, `finetune_vicuna.py` or `pretrain_base.py` for a row, in this process.

    Args:
        stage: One of the row's.
        row: What is trained.
        seed: Of initialisation and data order.
        world: Folder with `train/`.
        folder: The row's folder; the model goes to `folder/model`, stage 1 to `folder/pretrain`.
        steps: Optimizer steps of each stage.
        rate: Multiple of the YAML's learning rates.
        budget: Multiple of `steps`.

    Returns:
        Last logged losses and the number of steps.
    """
    output = folder / ("pretrain" if stage == "pretrain" else "model")
    max_steps = max(1, round(budget * steps[stage]))
    options = [
        f"model.vision_tower={row.vision_tower}",
        f"model.tower={write_tower(row, folder, world)}",
        *data_options(stage, world, row.scenes),
        f"train.output_dir={output}",
        f"train.seed={seed}",
        f"train.max_steps={max_steps}",
        f"train.save_steps={min(max_steps, SAVE_STEPS)}",  # where an interrupted run goes on
        *rate_options(stage, rate),
        *cache_options(world),
        *row.options,
    ]
    if not cpu_has_fast_bf16():
        options.append("train.bf16=false")
    if stage == "finetune":
        options.append(f"model.pretrain_mm_mlp_adapter={folder / 'pretrain'}")
    run_script(stage, options)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    late = [line["loss"] for line in lines[-5:]]
    for checkpoint in output.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    return {"loss": sum(late) / len(late), "steps": lines[-1]["step"]}


def rate_options(stage: str, rate: float) -> list[str]:
    """The YAML's learning rates times `rate`; none for 1."""
    train = read_yaml(PROJECT / f"{stage}.yaml")["train"]
    keys = [key for key in ("learning_rate", "mm_projector_lr", "fusion_lr") if key in train and rate != 1]
    return [f"train.{key}={rate * train[key]!r}" for key in keys]


def cache_options(world: Path) -> list[str]:
    """One expert cache for all rows and seeds, whose frozen parts and images are the same.

    In float32, so that what is read has the bits of what was computed.

    Args:
        world: Folder with `train/`; the cache lies beside it.
    """
    return [f"train.expert_cache={world.parent / 'expert_cache'}", "train.expert_cache_dtype=float32"]


def run_script(stage: str, options: list[str], project: Path = PROJECT) -> None:
    """The script's main, as `deepspeed scripts/... --cfg-path ... --options ...` calls it with one rank."""
    from tove_lvlm.recipes import encoder_decoder, llava
    from tove_lvlm.recipes.merge import MERGE
    from tove_lvlm.train.launch import main

    stages = {known.name: known for known in (llava.PRETRAIN, llava.FINETUNE, encoder_decoder.PRETRAIN, MERGE)}
    code = main(stages[stage], ["--cfg-path", str(project / f"{stage}.yaml"), "--options", *options])
    if code != 0:
        raise RuntimeError(f"{stage} ended with exit code {code}")


def evaluate(model: Path, world: Path, split: str = "heldout", detached: Sequence[str] = ()) -> dict:
    """Accuracy on the questions of a split, by family and overall, and how the gate shares.

    Args:
        model: A model's folder.
        world: The data.
        split: `heldout`, or what something is chosen on.
        detached: Experts to take out first.

    Returns:
        Also `by_scene`, right answers of each scene in the questions' order (`comparison.pack_counts`), and `trained`,
        parameters of fusion and projector.
    """
    talk = Chat.load(model, device="cpu")
    if detached:
        find_tower(talk.model).detach(*detached)
    questions, folder = read_questions(world / split / "questions.jsonl"), world / split / "images"
    answers = talk.ask_many(
        [folder / q.image for q in questions], [q.text for q in questions], max_new_tokens=8, batch_size=128
    )
    scored = score(questions, answers)
    images = [folder / name for name in dict.fromkeys(question.image for question in questions)]
    return {
        "overall": scored["overall"]["accuracy"],
        "families": scored["families"],
        "by_scene": pack_counts(right_by_scene(questions, answers)),
        "trained": trained_parameters(talk.model),
        "gate": gate_statistics(talk, images),
        "detached": list(detached),
        "commit": commit(),
        "hardware": hardware(),
    }


def right_by_scene(questions: Sequence[FamilyQuestion], answers: Sequence[str]) -> list[int]:
    """How many answers are right in each scene, in the order in which the scenes are first asked about."""
    right: dict[str, int] = {}
    for question, answer in zip(questions, answers, strict=True):
        hit = normalize(answer) == normalize(question.answer)
        right[question.image] = right.get(question.image, 0) + hit
    return list(right.values())


def trained_parameters(model: torch.nn.Module) -> int:
    """Parameters of `tove_fusion` and of the projector; LoRA's are the same for every row."""
    tower = find_tower(model)
    parts = [model.model.multi_modal_projector, *([] if tower is None else [tower.tove_fusion])]
    return sum(parameter.numel() for part in parts for parameter in part.parameters())
