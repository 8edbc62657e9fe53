"""Typed schema of the training YAMLs (DESIGN.md section 4). Key names are LLaVA's flags; nothing heavy is imported."""

import dataclasses
from dataclasses import dataclass, field

from ..config import ConfigError
from ..lvlm.config import LoraOptions, ModelConfig

SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup")
REPORTERS = ("none", "tensorboard", "wandb")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """The `data` block."""

    train: list[str]
    """LLaVA JSON files, concatenated in this order."""
    image_folder: str | None = None
    """Folder that the samples' `image` paths are relative to; none for text-only data."""
    image_aspect_ratio: str = dataclasses.field(default="square", metadata={"choices": ("square", "pad")})
    """`pad` pads to a square with the image mean before resizing, as LLaVA-1.5 does in stage 2."""
    on_error: str = dataclasses.field(default="raise", metadata={"choices": ("raise", "skip")})
    """What to do with a broken sample; `skip` counts, reports, and stops when too many are broken."""
    allow_symlinks: bool = False
    """Let links inside the image folder lead out of it, as where COCO lies elsewhere; `..` in a sample never does."""

    def __post_init__(self):
        if not self.train:
            raise ConfigError("`data.train` is empty; list at least one LLaVA JSON file")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The `train` block."""

    output_dir: str
    """Where checkpoints, logs and results go; relative to the working directory."""
    deepspeed: str | None = None
    """DeepSpeed JSON; none trains one rank with plain torch."""
    per_device_train_batch_size: int = 1
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-3
    """Of everything trainable, except what `mm_projector_lr` names."""
    mm_projector_lr: float | None = None
    """Of the projector and `tove_fusion`; none takes `learning_rate`."""
    freeze_mm_mlp_adapter: bool = False
    """Stage 1: the projector stays as it is and only `tove_fusion` learns, as a grafted tower wants."""
    balance_loss_weight: float = 0.01
    """Weight of the gate's balance loss beside the language-model loss."""
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
    model_max_length: int = 2048
    """Tokens per sample, visual tokens included."""
    group_by_modality_length: bool = False
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
    save_merged: bool = False
    """After stage 2, also write the merged model as an ordinary LlavaForConditionalGeneration folder."""
    stall_timeout: float = 1800.0
    """Seconds without a finished step after which the run is stopped; 0 never."""

    def __post_init__(self):
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps", "model_max_length", "save_steps"):
            _at_least(name, getattr(self, name), 1)
        for name in ("logging_steps", "save_total_limit", "num_threads"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        for name in ("balance_loss_weight", "weight_decay", "max_grad_norm", "dataloader_num_workers", "stall_timeout"):
            _at_least(name, getattr(self, name), 0)
        for name in ("learning_rate", "mm_projector_lr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"`train.{name}` is {value}; expected a positive number")
        if not 0 <= self.warmup_ratio < 1:
            raise ConfigError(f"`train.warmup_ratio` is {self.warmup_ratio}; expected 0 <= ratio < 1")
        if self.max_steps != -1 and self.max_steps < 1:
            raise ConfigError(f"`train.max_steps` is {self.max_steps}; expected -1 (by epochs) or at least 1")
        if self.max_steps == -1 and self.num_train_epochs <= 0:
            raise ConfigError(f"`train.num_train_epochs` is {self.num_train_epochs}; expected a positive number")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """One training YAML."""

    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    lora: LoraOptions = field(default_factory=LoraOptions)


def _at_least(name: str, value: float, low: int) -> None:
    if not value >= low:
        raise ConfigError(f"`train.{name}` is {value}; expected at least {low}")
