"""One row of projects/real_small: trained by the scripts' own code, asked about the held-out pictures."""

import contextlib
import dataclasses
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import yaml

from tove_lvlm.checkpoints import LoadedCheckpoint, load_model
from tove_lvlm.config import read_yaml
from tove_lvlm.eval.benchmark import Benchmark, read_benchmark
from tove_lvlm.eval.families import chance, read_questions
from tove_lvlm.eval.gates import mean_gate_mass
from tove_lvlm.eval.generate import answers
from tove_lvlm.eval.io.items import Item
from tove_lvlm.feature_cache import CacheFolder, FeatureCache
from tove_lvlm.inference.batching import DecodingConfig
from tove_lvlm.project_files import project_files
from tove_lvlm.provenance import commit, hardware
from tove_lvlm.tower.recorder import find_tower

from .intervals import wilson
from .training import matched_hidden, run_script, trained_parameters

PROJECT = project_files() / "projects" / "real_small"
LIKELIHOOD, WORDS = "questions_likelihood", "questions"
CACHE_DTYPE = "float16"
BATCH_SIZE = 32
TOWER, DINOV2_TOWER = "tower.yaml", "dinov2_tower.yaml"
EXPERTS = ("dinov2", "edges", "saliency", "person", "text")
LAST_LOGGED = 10
"""A stage's last loss is the mean over so many logged ones."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant."""

    id: str
    label: str
    tower: str = TOWER
    """Of the project."""
    experts: tuple[str, ...] = EXPERTS
    """Of the tower, or `own`: the base network again, so that parameters are all that is added."""
    fusion: Mapping[str, Any] = field(default_factory=dict)
    """Changes to the tower's `fusion`."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Changes to both stages' `train`."""


ROWS = (
    Row(id="base", label="base alone", experts=()),
    Row(id="tove", label="ToVE, all experts"),
    Row(id="matched", label="base, as many parameters", experts=("own",), fusion={"mlp_hidden": "matched"}),
    Row(id="dinov2", label="ToVE, DINOv2 alone", experts=("dinov2",)),
    Row(id="concat", label="channel concatenation", fusion={"kind": "concat"}),
    Row(id="dinov2_base", label="DINOv2 as base, alone", tower=DINOV2_TOWER, experts=()),
    Row(id="dinov2_tove", label="ToVE: DINOv2 as base, ImageNet expert", tower=DINOV2_TOWER, experts=("imagenet",)),
    Row(
        id="dinov2_tove_slow",
        label="the same, tove_fusion at a fifth of the projector's rate",
        tower=DINOV2_TOWER,
        experts=("imagenet",),
        train={"fusion_lr": 2e-4},
    ),
)


def write_tower(row: Row, folder: Path) -> Path:
    """The row's tower as a YAML."""
    tower = read_yaml(PROJECT / row.tower)
    base = {key: value for key, value in tower["base"].items() if key != "input_size"}
    entries = {entry["name"]: entry for entry in tower["experts"]} | {"own": {"name": "own", **base}}
    tower["experts"] = [entries[name] for name in row.experts]
    changes = dict(row.fusion)
    if changes.get("mlp_hidden") == "matched":
        whole = read_yaml(PROJECT / row.tower)
        changes["mlp_hidden"] = matched_hidden(whole, entries[row.experts[0]])
    tower["fusion"] |= changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tower.yaml").write_text(yaml.safe_dump(tower, sort_keys=False), encoding="utf-8")
    return folder / "tower.yaml"


def train(row: Row, stage: str, seed: int, root: Path, folder: Path, steps: int | None) -> dict[str, Any]:
    """A stage of a row in this process, as the launcher runs it with one rank.

    Args:
        row: What is trained.
        stage: `pretrain` or `finetune`.
        seed: Of initialisation and data order.
        root: Folder with `data` and `expert_cache`.
        folder: Of the row.
        steps: Optimizer steps; none takes the YAML's.

    Returns:
        First logged loss, `last_loss` as `LAST_LOGGED` says, and steps.
    """
    output = folder / ("pretrain" if stage == "pretrain" else "model")
    options = [
        f"model.vision_tower={'tove' if row.experts else 'clip'}",
        f"model.tower={write_tower(row, folder)}",
        f"data.train=[{root / 'data' / 'train' / f'{stage}.json'}]",
        f"data.image_folder={root / 'data' / 'train' / 'images'}",
        f"train.seed={seed}",
        f"train.expert_cache={root / 'expert_cache'}",
        *(f"train.{key}={value}" for key, value in row.train.items()),
    ]
    options += [f"model.pretrain_mm_mlp_adapter={folder / 'pretrain'}"] if stage == "finetune" else []
    lines = run_logged(stage, options, output, steps)
    last_loss = round(fmean(line["loss"] for line in lines[-LAST_LOGGED:]), 4)
    return {"first_loss": lines[0]["loss"], "last_loss": last_loss, "steps": lines[-1]["step"]}


def run_logged(stage: str, options: list[str], output: Path, steps: int | None) -> list[dict]:
    """Run a script of the project in this process; what it logged, line by line.

    Args:
        stage: `pretrain`, `finetune` or `merge`.
        options: `a.b=c` strings over its YAML, without its folder.
        output: That folder.
        steps: Optimizer steps; none takes the YAML's.
    """
    changes = [] if steps is None else [f"train.max_steps={steps}", "train.logging_steps=1"]
    run_script(stage, [*options, f"train.output_dir={output}", *changes], PROJECT)
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


# ---- asking ----


def evaluate(model: Path, root: Path) -> dict[str, Any]:
    """Held-out accuracies of a trained row; see `ask`.

    Args:
        model: A merged model's folder.
        root: Folder with `data` and `expert_cache`.
    """
    with open_cached(model, root) as loaded:
        return ask(loaded, root)


@contextlib.contextmanager
def open_cached(model: Path, root: Path) -> Iterator[LoadedCheckpoint]:
    """A trained row that takes its features from the cache; how many at the end, for the job's log.

    Args:
        model: A merged model's folder.
        root: Folder with `expert_cache`.
    """
    loaded = load_model(model)
    tower = find_tower(loaded.model)
    if tower is None:
        yield loaded
        return
    tower.feature_cache = cache = FeatureCache(CacheFolder(root / "expert_cache"), tower, CACHE_DTYPE)
    try:
        yield loaded
    finally:
        cache.close()
        print(f"{cache.num_read} of {cache.num_read + cache.num_computed} features were read")


@torch.no_grad()
def ask(loaded: LoadedCheckpoint, root: Path) -> dict[str, Any]:
    """Held-out accuracies by family with their 95 % intervals.

    `likelihood` takes the likeliest choice, `words` what the model says, and `shuffled` what it says when each question
    gets a picture of another question of its family: a model that looks at pictures falls to what the text alone is
    worth (`chance`).

    Args:
        loaded: Of `open_cached`.
        root: Folder with `data`.
    """
    heldout = root / "data" / "heldout"
    by_choice, in_words = (read_benchmark(name, [heldout / "questions.jsonl"]) for name in (LIKELIHOOD, WORDS))

    def asked(benchmark: Benchmark, items: Sequence[Item]) -> dict[str, Any]:
        decoding = DecodingConfig(max_new_tokens=8)
        found = answers(loaded, items, heldout / "images", decoding, BATCH_SIZE, benchmark.problems)
        return _by_family(benchmark, {prediction.item.question_id: prediction.text for prediction in found})

    pictures = [heldout / "images" / name for name in sorted({item.image for item in by_choice.items})]
    mass = mean_gate_mass(loaded.model, loaded.image_processor, pictures, loaded.image_aspect_ratio)
    return {
        "likelihood": asked(by_choice, by_choice.items),
        "words": asked(in_words, in_words.items),
        "shuffled": asked(in_words, shuffled(in_words.items)),
        "chance": chance(read_questions(heldout / "questions.jsonl")),
        "gate_mass": {name: round(value, 4) for name, value in mass.items()},
        "trained": trained_parameters(loaded.model),
        "commit": commit(),
        "hardware": hardware(),
    }


def shuffled(items: Sequence[Item], seed: int = 0) -> list[Item]:
    """The pictures of each family dealt out anew among its questions; a few get their own again.

    Args:
        items: With a family as their group.
        seed: Of the order.
    """
    by_family = defaultdict(list)
    for item in items:
        by_family[item.group].append(item)
    changed = []
    for family, of_family in sorted(by_family.items()):
        images = [item.image for item in of_family]
        random.Random(f"{seed}:{family}").shuffle(images)
        changed += [dataclasses.replace(item, image=image) for item, image in zip(of_family, images, strict=True)]
    return changed


def _by_family(benchmark: Benchmark, texts: Mapping[str, str]) -> dict[str, Any]:
    score = benchmark.score(texts)
    families = {
        name: {**found, "interval": wilson(found["accuracy"], int(found["n"]))} for name, found in score.groups.items()
    }
    overall = score.metrics["accuracy"]
    return {"overall": {"accuracy": overall, "interval": wilson(overall, score.num_items)}, "families": families}
