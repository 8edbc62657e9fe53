"""YAML of LLaVA's two stages. Key names are LLaVA's flags.

See docs/design.md, "Configuration".
"""

import dataclasses
from dataclasses import dataclass, field

from ..errors import ConfigError
from .loop import LoopConfig, at_least, check_error_share, positive
from .model import LoraConfig, ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """The `data` block."""

    train: list[str]
    """LLaVA JSON or JSONL files, or webdataset's tar shards (see `data.shards`), concatenated in this order.
    `{00000..00331}` in a name stands for that many files."""
    image_folder: str | None = None
    """Folder that the samples' `image` paths are relative to; none for text-only data and for shards."""
    image_aspect_ratio: str = dataclasses.field(default="square", metadata={"choices": ("square", "pad")})
    """`pad` pads to a square with the image mean before resizing, as LLaVA-1.5 does in stage 2."""
    on_error: str = dataclasses.field(default="raise", metadata={"choices": ("raise", "skip")})
    """What to do with a broken sample; `skip` counts, reports, and stops when too many are broken."""
    max_error_share: float = 0.01
    """With `on_error: skip`, the share of samples that may be broken before the run stops (five may always)."""
    allow_symlinks: bool = False
    """Let links inside the image folder lead out of it, as where COCO lies elsewhere; `..` in a sample never does."""

    def __post_init__(self) -> None:
        if not self.train:
            raise ConfigError("`data.train` is empty; list at least one LLaVA JSON file or shard")
        check_error_share(self.max_error_share)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(LoopConfig):
    """The `train` block."""

    mm_projector_lr: float | None = None
    """Of the projector and `tove_fusion`; none takes `learning_rate`."""
    gate_lr: float | None = None
    """Of the gate in `tove_fusion`; none takes that of all `tove_fusion`."""
    freeze_mm_mlp_adapter: bool = False
    """Stage 1: the projector stays as it is and only `tove_fusion` learns, as a grafted tower wants."""
    balance_loss_weight: float = 0.01
    """Weight of the gate's balance loss beside the language-model loss."""
    model_max_length: int = 2048
    """Tokens per sample, visual tokens included."""
    group_by_modality_length: bool = False
    save_merged: bool = False
    """After stage 2, also write the merged model as an ordinary LlavaForConditionalGeneration folder."""

    def __post_init__(self) -> None:
        LoopConfig.__post_init__(self)  # super() does not know a class with slots
        at_least("model_max_length", self.model_max_length, 1)
        at_least("balance_loss_weight", self.balance_loss_weight, 0)
        if self.mm_projector_lr is not None:
            positive("mm_projector_lr", self.mm_projector_lr)
        if self.gate_lr is not None:
            positive("gate_lr", self.gate_lr)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """One training YAML."""

    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    lora: LoraConfig = field(default_factory=LoraConfig)
