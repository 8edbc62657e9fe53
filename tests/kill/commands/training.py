"""The training scripts: both stages of LLaVA, the base model, merging."""

from collections.abc import Callable
from pathlib import Path

from helpers import base_runs, llava_runs, merge_runs
from helpers.paths import ROOT
from kill.commands.command import OUTPUT, Command

_METRICS = (f"{OUTPUT}/metrics.jsonl",)


def _training(script: str, yaml: str, *options: str) -> Callable[[Path, Path, int], list[str]]:
    """`argv` of a script; on several ranks with DeepSpeed."""

    def argv(inputs: Path, place: Path, ranks: int) -> list[str]:
        zero = [] if ranks == 1 else [f"train.deepspeed={ROOT}/projects/deepspeed/zero2.json"]
        own = [f"train.output_dir={place / OUTPUT}", *zero, *(option.format(place=place) for option in options)]
        return [str(ROOT / "scripts" / script), "--cfg-path", str(inputs / yaml), "--options", *own]

    return argv


def _llava_world(folder: Path) -> None:
    llava_runs.make_world(folder)


def _base_world(folder: Path) -> None:
    base_runs.make_world(folder)


def _merge_world(folder: Path) -> None:
    """A merged model with an awake tower, pictures and `merge.yaml`."""
    from helpers.tiny_checkpoints import build, save
    from helpers.tiny_lvlm import make_data, make_llm
    from helpers.tiny_towers import make_tower_yaml

    tower = make_tower_yaml(folder / "tower", ["depth", "shapes"])
    model = save(folder / "model", *build(make_llm(folder / "llm"), tower=tower))
    merge_runs.write_yaml(folder, model, make_data(folder / "data") / "images", save_steps=2)


TRAINING = [
    Command(
        name="stage1",
        make=_llava_world,
        argv=_training("pretrain_projector.py", "pretrain.yaml"),
        ranks=(1, 2),
        growing=_METRICS,
    ),
    Command(
        name="stage2",
        make=_llava_world,
        argv=_training("finetune_vicuna.py", "finetune.yaml"),
        ranks=(1, 2),
        growing=_METRICS,
    ),
    Command(
        name="base",
        make=_base_world,
        argv=_training("pretrain_base.py", "pretrain_base.yaml"),
        ranks=(1, 2),
        growing=_METRICS,
    ),
    Command(
        name="merge",
        make=_merge_world,
        argv=_training("merge_experts.py", "merge.yaml", "train.expert_cache={place}/cache"),
        ranks=(1, 2),
        growing=_METRICS,
        kept=("cache/*/*.data", "cache/*/*.index"),
    ),
]
