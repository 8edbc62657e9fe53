"""Read a DeepSpeed JSON and refuse what would silently bypass the YAML.

Every number that the YAML also states must be `auto` or the same; an `optimizer` or `scheduler` block would make
transformers drop our learning-rate groups (`mm_projector_lr`) and cosine schedule, so it is refused.

See docs/design.md, "Training".
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from .loop import LoopConfig

_KEY = "train.deepspeed"


@dataclass(frozen=True, kw_only=True)
class DeepSpeedConfig:
    """A DeepSpeed JSON that goes with its YAML."""

    zero_stage: int
    settings: dict[str, Any]
    """All of it, for `TrainingArguments(deepspeed=...)`."""


def read_deepspeed(path: str | Path, train: "LoopConfig", world_size: int) -> DeepSpeedConfig:
    """Read and check a DeepSpeed JSON.

    Args:
        path: The JSON file.
        train: The YAML's `train` block, which the JSON must not contradict.
        world_size: Number of ranks, for `train_batch_size`.

    Raises:
        ConfigError: The file is absent, does not parse, or contradicts the YAML; the key is named.
    """
    tree = _parse(Path(path))
    for block in ("optimizer", "scheduler"):
        if block in tree:
            raise ConfigError(
                f"`{_KEY}` ({path}) has the block `{block}`, which would bypass the learning rates and the schedule "
                "of the YAML (train.learning_rate, train.mm_projector_lr, train.lr_scheduler_type); remove it"
            )
    stage = _block(tree, "zero_optimization", path).get("stage", 0)
    if stage not in (0, 1, 2, 3) or isinstance(stage, bool):
        raise ConfigError(f"`{_KEY}` ({path}): zero_optimization.stage is {stage!r}; expected 0, 1, 2 or 3")
    # Absent keys must reach the engine too: without this one DeepSpeed would not clip whatever the YAML says.
    tree.setdefault("gradient_clipping", "auto")
    for name in ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size"):
        tree.setdefault(name, "auto")
    _check_agreement(tree, path, train, world_size)
    return DeepSpeedConfig(zero_stage=stage, settings=tree)


def _check_agreement(tree: dict[str, Any], path: str | Path, train: "LoopConfig", world_size: int) -> None:
    micro, accumulation = train.per_device_train_batch_size, train.gradient_accumulation_steps
    bf16, fp16 = _block(tree, "bf16", path), _block(tree, "fp16", path)
    stated = [
        ("train_micro_batch_size_per_gpu", tree, micro, "train.per_device_train_batch_size"),
        ("gradient_accumulation_steps", tree, accumulation, "train.gradient_accumulation_steps"),
        (
            "train_batch_size",
            tree,
            micro * accumulation * world_size,
            f"train.per_device_train_batch_size x train.gradient_accumulation_steps x {world_size} rank(s)",
        ),
        ("gradient_clipping", tree, train.max_grad_norm, "train.max_grad_norm"),
        ("bf16.enabled", bf16, train.bf16, "train.bf16"),
        ("fp16.enabled", fp16, False, "half precision is bf16 here: train.bf16"),
    ]
    for dotted, block, expected, yaml_key in stated:
        value = block.get(dotted.rsplit(".", 1)[-1], "auto")
        if value != "auto" and value != expected:
            raise ConfigError(
                f"`{_KEY}` ({path}): `{dotted}` is {json.dumps(value)} but the YAML gives {json.dumps(expected)} "
                f'({yaml_key}); write "auto"'
            )


def _parse(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"`{_KEY}`: file `{path}` does not exist")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"`{_KEY}`: {path} is not valid JSON: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"`{_KEY}`: {path} must hold one JSON object, got {type(tree).__name__}")
    return tree


def _block(tree: dict[str, Any], name: str, path: str | Path) -> dict[str, Any]:
    value = tree.get(name, {})
    if not isinstance(value, dict):
        raise ConfigError(f"`{_KEY}` ({path}): `{name}` must be an object, got {json.dumps(value)}")
    return value
