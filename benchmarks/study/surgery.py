"""What is done to a trained row: experts taken out one after another, merging into one CLIP, short re-tuning."""

from collections.abc import Mapping
from pathlib import Path

from tove_lvlm.lvlm.loading import open_checkpoint
from tove_lvlm.surgery.choose import KEEP, Rule, choose
from tove_lvlm.surgery.probe import Probe
from tove_lvlm.surgery.probe_data import read_probe_data

from .training import BATCH, run_script


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
    ]
    run_script("merge", options + ([] if steps is None else [f"train.max_steps={steps}"]))
    return {}


def retune(start: Mapping[str, Path], world: Path, output: Path, seed: int, steps: int) -> dict:
    """A short stage 2 more, from a model as it is.

    Args:
        start: `llm` and `pretrain` folders, and `clip`, the vision tower.
        world: Folder with `train/`.
        output: Where the model goes.
        seed: Of the data order.
        steps: Optimizer steps.
    """
    options = [
        f"model.vision_tower={start['clip']}",
        f"model.llm={start['llm']}",
        f"model.pretrain_mm_mlp_adapter={start['pretrain']}",
        f"data.train=[{world / 'train' / 'finetune.json'}]",
        f"data.image_folder={world / 'train' / 'images'}",
        f"train.output_dir={output}",
        f"train.seed={seed + 100}",  # other batches than those it has just seen
        f"train.max_steps={steps}",
        f"train.save_steps={steps}",
        f"train.per_device_train_batch_size={BATCH['finetune']}",
        "train.learning_rate=5.0e-4",
        "train.mm_projector_lr=5.0e-4",
        "train.bf16=true",
    ]
    run_script("finetune", options)
    return {}

