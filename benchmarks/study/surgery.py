"""What is done to a trained row: experts taken out one after another, merging into one CLIP, short re-tuning."""

from pathlib import Path

from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.checkpoints.projector import collect_projector
from tove_lvlm.checkpoints.stage1 import save_stage1
from tove_lvlm.recipes.merge.writing import CLIP, LLM, PRETRAIN, replace_tower
from tove_lvlm.surgery.choose import KEEP, Rule, choose
from tove_lvlm.surgery.probe import Probe
from tove_lvlm.surgery.probe_data import read_probe_data

from .training import cache_options, run_script


def detach_ladder(model: Path, world: Path) -> dict:
    """Greedy detachment, chosen on scenes that nothing else is measured on, and the held-out score at every step.

    Args:
        model: A trained ToVE model.
        world: Folder with `probe/` (to choose on) and `heldout/` (to measure on).

    Returns:
        `order` of removal, `overall` accuracy with all experts and after each removal, `single`: accuracy with only
        that expert away.
    """
    loaded = open_checkpoint(model)
    names = loaded.tower.attached_names
    choice = choose(names, _probe(loaded, world / "probe").quality, Rule(name=KEEP, limit=0))
    order = list(choice.removed)
    ladder = [tuple(name for name in names if name not in order[:gone]) for gone in range(len(names) + 1)]
    singles = [tuple(name for name in names if name != gone) for gone in names]
    measured = [quality.score for quality in _probe(loaded, world / "heldout").quality([*ladder, *singles])]
    single = dict(zip(names, measured[len(ladder) :], strict=True))
    return {"order": order, "overall": measured[: len(ladder)], "single": single}


def _probe(loaded, split: Path) -> Probe:
    return Probe(loaded, read_probe_data(split / "questions.jsonl", split / "images", None))


def merge(model: Path, world: Path, output: Path, seed: int, steps: int | None) -> dict:
    """Run `scripts/merge_experts.py` on a trained model with the training images.

    Args:
        model: A trained ToVE model.
        world: Folder with `train/images`.
        output: Where the student goes (`clip`), the model with it (`lvlm`) and what re-tuning starts from.
        seed: Of the order of images.
        steps: Optimizer steps; none takes the YAML's.
    """
    options = [
        f"model.checkpoint={model}",
        f"data.images=[{world / 'train' / 'images'}]",
        f"train.output_dir={output}",
        f"train.seed={seed}",
        *cache_options(world),
    ]
    run_script("merge", options + ([] if steps is None else [f"train.max_steps={steps}"]))
    return {}


def take_apart(model: Path, output: Path) -> dict:
    """Write a CLIP-only model in the parts that re-tuning starts from, as merging does for its student.

    Args:
        model: A trained CLIP-only model.
        output: Gets `clip`, `pretrain` and `llm`.
    """
    loaded = open_checkpoint(model)
    layer = loaded.model.config.vision_feature_layer
    parts, _ = replace_tower(loaded, loaded.model.model.vision_tower, layer)
    parts.model.model.vision_tower.save_pretrained(output / CLIP)
    loaded.image_processor.save_pretrained(output / CLIP)
    save_stage1(output / PRETRAIN, collect_projector(parts.model), parts.model, parts.processor)
    parts.llm.save_pretrained(output / LLM)
    parts.processor.tokenizer.save_pretrained(output / LLM)
    return {}


def retune(parts: Path, world: Path, output: Path, seed: int, steps: int) -> dict:
    """A short second stage more, with half of the learning rates, from a model as it is.

    Args:
        parts: Folder with `clip`, `pretrain` and `llm`.
        world: Folder with `train/`.
        output: Where the model goes.
        seed: Of the data order, made another one than that of the training before.
        steps: Optimizer steps.
    """
    options = [
        f"model.vision_tower={parts / CLIP}",
        f"model.llm={parts / LLM}",
        f"model.pretrain_mm_mlp_adapter={parts / PRETRAIN}",
        f"data.train=[{world / 'train' / 'finetune.json'}]",
        f"data.image_folder={world / 'train' / 'images'}",
        f"train.output_dir={output}",
        f"train.seed={seed + 100}",
        f"train.max_steps={steps}",
        f"train.save_steps={steps}",
        "train.learning_rate=1.0e-3",
        "train.mm_projector_lr=5.0e-4",
    ]
    run_script("finetune", options)
    return {}
