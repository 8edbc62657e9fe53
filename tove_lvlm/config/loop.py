"""What every kind of training has in its YAML: the `train` block's keys that the engine reads.

See docs/design.md, "Configuration".
"""

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..errors import ConfigError
from .deepspeed import DeepSpeedConfig, read_deepspeed
from .parsing import DERIVED
from .sources import resolve_path

SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup")
REPORTERS = ("none", "tensorboard", "wandb")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """What the `train` block of every stage holds. Key names are LLaVA's flags."""

    output_dir: str
    """Where checkpoints, logs and results go; relative to the working directory."""
    deepspeed: str | None = None
    """DeepSpeed JSON; none trains one rank with plain torch."""
    deepspeed_config: DeepSpeedConfig | None = field(default=None, metadata=DERIVED)
    """What that JSON holds, once it is read."""
    per_device_train_batch_size: int = 1
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-3
    """Of everything trainable that has no rate of its own."""
    max_steps: int = -1
    """Optimizer steps; -1 takes `num_train_epochs`."""
    num_train_epochs: float = 1.0
    lr_scheduler_type: str = field(default="cosine", metadata={"choices": SCHEDULES})
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    bf16: bool = False
    """Weights and arithmetic in bfloat16 (fp32 master weights under DeepSpeed)."""
    tf32: bool = False
    gradient_checkpointing: bool = False
    save_steps: int = 500
    save_total_limit: int | None = 1
    logging_steps: int = 1
    report_to: str = field(default="none", metadata={"choices": REPORTERS})
    seed: int = 42
    dataloader_num_workers: int = 0
    num_threads: int | None = None
    """Torch threads per rank; none takes OMP_NUM_THREADS, else cores / local ranks (CPU only)."""
    resume: bool = True
    """Go on from the newest complete checkpoint in `output_dir`; false starts over and moves old ones aside."""
    stall_timeout: float = 1800.0
    """Seconds without a finished step after which the run is stopped; 0 never."""

    def __post_init__(self) -> None:
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps", "save_steps"):
            at_least(name, getattr(self, name), 1)
        for name in ("logging_steps", "save_total_limit", "num_threads"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)
        for name in ("weight_decay", "max_grad_norm", "dataloader_num_workers", "stall_timeout"):
            at_least(name, getattr(self, name), 0)
        positive("learning_rate", self.learning_rate)
        if not 0 <= self.warmup_ratio < 1:
            raise ConfigError(f"`train.warmup_ratio` is {self.warmup_ratio}; expected 0 <= ratio < 1")
        if self.max_steps != -1 and self.max_steps < 1:
            raise ConfigError(f"`train.max_steps` is {self.max_steps}; expected -1 (by epochs) or at least 1")
        if self.max_steps == -1 and self.num_train_epochs <= 0:
            raise ConfigError(f"`train.num_train_epochs` is {self.num_train_epochs}; expected a positive number")


Loop = TypeVar("Loop", bound=LoopConfig)


def resolve_loop(train: Loop, base: Path) -> Loop:
    """A `train` block with absolute paths and its DeepSpeed JSON read.

    Args:
        train: As it was read.
        base: What paths that start with ./ or ../ are relative to.

    Raises:
        ConfigError: One line that names the key.
    """
    output_dir = Path(train.output_dir).expanduser().resolve()
    if output_dir.exists() and not output_dir.is_dir():
        raise ConfigError(f"`train.output_dir`: `{train.output_dir}` exists and is not a folder")
    deepspeed, world_size = resolve_path("train.deepspeed", train.deepspeed, base, "file"), _world_size()
    if deepspeed is None and world_size > 1:
        raise ConfigError(f"`train.deepspeed` is empty, but there are {world_size} ranks; name a DeepSpeed JSON")
    return dataclasses.replace(
        train,
        output_dir=str(output_dir),
        deepspeed=deepspeed,
        deepspeed_config=None if deepspeed is None else read_deepspeed(deepspeed, train, world_size),
    )


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def check_error_share(share: float) -> None:
    """Raise ConfigError for a `data.max_error_share` that is no share."""
    if not 0 <= share <= 1:
        raise ConfigError(f"`data.max_error_share` is {share}; expected a share, 0 to 1")


def at_least(name: str, value: float, low: int) -> None:
    """Raise ConfigError for a `train` key below its bound."""
    if not value >= low:
        raise ConfigError(f"`train.{name}` is {value}; expected at least {low}")


def positive(name: str, value: float) -> None:
    """Raise ConfigError for a `train` key that is no positive number."""
    if not 0 < value < float("inf"):
        raise ConfigError(f"`train.{name}` is {value}; expected a positive number")
