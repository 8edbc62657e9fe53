"""What is done to a trained row: merging into one CLIP, taking apart, short re-tuning."""

from collections.abc import Sequence
from pathlib import Path

from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.checkpoints.projector import collect_projector
from tove_lvlm.checkpoints.stage1 import save_stage1
from tove_lvlm.recipes.merge.writing import CLIP, LLM, PRETRAIN, replace_tower

from .rows import Row
from .training import cache_options, data_file, run_script


def merge(model: Path, images: Sequence[str], world: Path, output: Path, seed: int, steps: int | None) -> dict:
    """Run `scripts/merge_experts.py` on a trained model.

    Args:
        model: A trained ToVE model.
        images: Options that say which images it learns from, those that the model was trained with.
        world: The data.
        output: Where the student goes (`clip`), the model with it (`lvlm`) and what re-tuning starts from.
        seed: Of the order of images.
        steps: Optimizer steps; none takes the YAML's.
    """
    options = [
        f"model.checkpoint={model}",
        *images,
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


def images_of(world: Path, scenes: int) -> list[str]:
    """Options for `merge`: the pictures of the first so many training scenes."""
    return [f"data.images=[{data_file(world, 'pretrain', scenes)}]", f"data.image_folder={world / 'train' / 'images'}"]


def retune(parts: Path, row: Row, world: Path, output: Path, seed: int, steps: int) -> dict:
    """A short second stage more, with half of the learning rates, from a model as it is.

    Args:
        parts: Folder with `clip`, `pretrain` and `llm`.
        row: What they were made of.
        world: Folder with `train/`.
        output: Where the model goes.
        seed: Of the data order, made another one than that of the training before.
        steps: Optimizer steps.
    """
    options = [
        f"model.vision_tower={parts / CLIP}",
        f"model.llm={parts / LLM}",
        f"model.pretrain_mm_mlp_adapter={parts / PRETRAIN}",
        f"data.train=[{data_file(world, 'finetune', row.scenes)}]",
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
