"""What a stage of training is: the contract between train/'s engine and what is trained.

The engine (train/stages.main and below) knows ranks, DeepSpeed, resuming, guards and the run's folder. A stage knows
its configuration, its model and data, and what it writes. LLaVA's two stages and merging (surgery/merge) are stages;
scripts/ and cli/ hand them to the engine, so that neither wing imports the other. Nothing heavy is imported here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, overload

from .config import ConfigError, to_dict

SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup")
REPORTERS = ("none", "tensorboard", "wandb")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """What the `train` block of every stage holds. Key names are LLaVA's flags."""

    output_dir: str
    """Where checkpoints, logs and results go; relative to the working directory."""
    deepspeed: str | None = None
    """DeepSpeed JSON; none trains one rank with plain torch."""
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

    def __post_init__(self):
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


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """What a stage hands to the engine. Every rank builds its own."""

    model: Any
    """Its trainables are what checkpoints hold. Called with a batch it gives an object with `loss`, the mean over the
    micro-batch, and `figures`, scalar tensors by name whose means are logged (unless `trainer_class` reads others)."""
    dataset: Any
    collator: Any
    """Makes a batch of samples, `sample_ids` (for messages) among its keys."""
    sampler: Any
    """Order of the samples, the same on every rank; has `set_epoch`."""
    identity: dict[str, Any]
    """What a checkpoint must share with the run that goes on from it, besides what the engine adds."""
    results: Callable[[Any], Callable[[Path], None]]
    """Called on every rank with the trainer at the end, to gather; what it returns writes into an empty folder, on rank
    0 only, whose entries then take their places in `output_dir`."""
    trainer_class: type | None = None
    """Of the engine's kind, for a loss or rates of its own."""
    trainer_arguments: dict[str, Any] = field(default_factory=dict)


class Resolve(Protocol):
    """Absolute path of what a key of the YAML names, or its hub id, checked; None of None. See train/checks.py."""

    @overload
    def __call__(self, key: str, source: str, kind: str, hub: bool = False) -> str: ...
    @overload
    def __call__(self, key: str, source: None, kind: str, hub: bool = False) -> None: ...


class Stage(Protocol):
    """Something that the engine can train."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str:
        """For `--help`."""

    @property
    def schema(self) -> type:
        """Dataclass of the YAML; its `train` is a LoopConfig."""

    def resolve_paths(self, config: Any, resolve: Resolve) -> Any:
        """The run with absolute paths, everything checked that can be without torch.

        Args:
            config: Of the stage's schema.
            resolve: `resolve(key, source, kind, hub=False)`, see train/checks.py.

        Raises:
            ConfigError: One line that names the key.
        """

    def build(self, config: Any) -> TrainingSetup:
        """Model and data, on every rank.

        Raises:
            UserError: What the user gave does not fit.
        """


def block_values(config: Any, *blocks: str) -> dict[str, Any]:
    """`block.key` -> value of these blocks, for `TrainingSetup.identity`. What only says when a run gives up on broken
    data is left out: it changes nothing that a checkpoint holds.

    Args:
        config: Of the stage's schema.
        blocks: Names of its blocks.
    """
    values = to_dict(config)
    keys = {f"{block}.{key}": value for block in blocks for key, value in values[block].items()}
    return {key: value for key, value in keys.items() if key != "data.max_error_share"}


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
