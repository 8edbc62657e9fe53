"""YAML of merging; the keys that training YAMLs also have mean the same."""

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

from ..errors import ConfigError
from .loop import LoopConfig, refuse_fsdp, refuse_gate_panels
from .model import LoraConfig
from .parsing import Deprecated, warn_deprecated
from .ranges import number

LOSSES = ("smooth_l1", "cosine", "both")
NORMALISATIONS = ("none", "channel")
WEIGHTS = ("none", "cls_attention")


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeModelConfig:
    """The `model` block."""

    checkpoint: str
    """Folder with a trained ToVE tower in any form: a saved tower, stage 1's or stage 2's `output_dir`, an adapter."""
    student: str | None = None
    """Folder or hub id of another CLIP to start from, of the same sizes; none takes the tower's own CLIP."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeDataConfig:
    """The `data` block: images are all that is learned from."""

    images: list[str]
    """Folders of images (with all that is below them) and LLaVA JSON files, whose images are taken."""
    image_folder: str | None = None
    """Folder that the JSON files' `image` paths are relative to."""
    image_aspect_ratio: str | None = field(default=None, metadata={"choices": (None, "square", "pad")})
    """None takes what the checkpoint was trained with."""
    direct_resize: bool = True
    """As in training, whose expert cache is only read where pixels are resized in the same way."""
    allow_symlinks: bool = False
    """Let links inside the image folder lead out of it."""
    max_error_share: float = field(default=0.01, metadata=number(low=0, high=1))
    """Share of images that may be broken before the run stops (five may always)."""
    horizontal_flip: bool = False
    """Mirror every second image at random, for teacher and student alike (our choice)."""

    DEPRECATED: ClassVar = {"max_broken": Deprecated(renamed="max_error_share")}

    def __post_init__(self) -> None:
        if not self.images:
            raise ConfigError("`data.images` is empty; list at least one folder of images or one LLaVA JSON file")


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeConfig:
    """The `merge` block: what the student is trained to give. What was measured: docs/results.md, "Merge"."""

    loss: str = field(default="smooth_l1", metadata={"choices": LOSSES})
    """`both` is the sum of the two."""
    normalize_target: str = field(default="channel", metadata={"choices": NORMALISATIONS})
    """`channel`: student and target are compared in units of each channel's standard deviation over the target."""
    normalize_images: int = field(default=256, metadata=number(low=1))
    """Images that mean and standard deviation are taken over, before the first step."""
    token_weight: str = field(default="none", metadata={"choices": WEIGHTS})
    """Deprecated, because measured worse than `none`. `cls_attention`: a token counts as much as the CLIP's class token
    attends to it (MoVE-KD)."""
    cache_teacher: str | None = None
    """Deprecated: `train.expert_cache` keeps what the teacher's frozen parts give, and is read in its place."""
    save_for_tuning: bool = True
    """Of a checkpoint with a language model, also write what scripts/finetune_vicuna.py needs to go on from it."""

    def __post_init__(self) -> None:
        if self.token_weight != "none":
            warn_deprecated("`merge.token_weight` is deprecated: `cls_attention` was measured worse than `none`")


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeRunConfig:
    """One merging YAML."""

    model: MergeModelConfig
    data: MergeDataConfig
    train: LoopConfig
    merge: MergeConfig = field(default_factory=MergeConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Deprecated, because measured a little worse than training all weights. `lora.lora_enable`: the student learns by
    LoRA on its linear layers, merged at the end."""

    def __post_init__(self) -> None:
        refuse_fsdp(self.train)
        refuse_gate_panels(self.train)
        if self.lora.lora_enable:
            warn_deprecated("`lora` is deprecated for merging: it was measured worse than training all weights")
        if self.merge.cache_teacher is not None:
            warn_deprecated("`merge.cache_teacher` is deprecated: give the folder as `train.expert_cache`")
            cache = self.train.expert_cache or self.merge.cache_teacher
            object.__setattr__(self, "train", dataclasses.replace(self.train, expert_cache=cache))
            object.__setattr__(self, "merge", dataclasses.replace(self.merge, cache_teacher=None))
        if self.data.horizontal_flip and self.train.expert_cache is not None:
            raise ConfigError(
                "`data.horizontal_flip` and `train.expert_cache` exclude each other: what is kept is of the image as "
                "it was, not as it is mirrored; leave one of the two out"
            )
