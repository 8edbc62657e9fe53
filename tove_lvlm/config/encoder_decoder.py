"""YAML of the base model's runs: ToVE without a large language model.

A vision tower and a text decoder that looks at its tokens by cross-attention, in transformers'
`VisionEncoderDecoderModel`.

See docs/design.md, "Base model".
"""

from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from .loop import LoopConfig, refuse_fsdp
from .parsing import DERIVED
from .ranges import number
from .tower import TowerConfig

TRAINABLE = ("fusion_and_cross_attention", "language_model", "all_but_backbones")
"""Names of what a run may train, see `lvlm.trainable`."""
TASKS = ("caption", "vqa", "statement")
FORMATS = ("llava", "coco", "karpathy", "tsv", "visual_genome", "vsr", "vqav2", "webdataset")
LOSS_REDUCTIONS = ("mean_per_token", "sum_per_text")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderDecoderConfig:
    """The `model` block."""

    pretrained: str | None = None
    """Folder of a finished run, whose tower and decoder go on. The keys below are then left out, but for `detached`."""
    decoder: str | None = None
    """Hub id or folder of a language model whose layers may look at an image by cross-attention, with its tokenizer:
    RoBERTa, BERT, GPT-2, BART."""
    decoder_architecture: dict[str, Any] | None = None
    """Fields of its configuration with `model_type`, for sizes where the hub cannot be asked (`tove info`)."""
    vision_tower: str = "tove"
    """`tove` (built from `tower`), `clip` (the same CLIP without experts: the baseline), or a folder with a saved
    tower."""
    tower: str | None = None
    """YAML of the tower; with `vision_tower: clip` only its `clip` entry counts."""
    tower_config: TowerConfig | None = field(default=None, metadata=DERIVED)
    """What that YAML holds, once it is read."""
    detached: list[str] = field(default_factory=list)
    """Experts that are neither loaded nor run, besides those that the tower itself says."""

    def __post_init__(self) -> None:
        if self.pretrained is not None:
            given = {"decoder": self.decoder, "decoder_architecture": self.decoder_architecture, "tower": self.tower}
            for key, value in given.items():
                if value is not None:
                    raise ConfigError(
                        f"`model.{key}` is given, but `model.pretrained` names a whole model, which has its own; leave "
                        "one of the two out"
                    )
            return
        if not self.decoder:
            raise ConfigError("`model.decoder` is empty; give a hub id or a folder, or name a start in `pretrained`")
        if self.vision_tower in ("tove", "clip") and self.tower is None:
            raise ConfigError(
                f"`model.vision_tower` is `{self.vision_tower}`, so `model.tower` must name the tower's YAML"
            )
        if self.vision_tower == "clip" and self.detached:
            raise ConfigError("`model.detached` names experts, but `model.vision_tower` is `clip`, which has none")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """One entry of `data.mix`: files of one kind."""

    task: str = field(default="caption", metadata={"choices": TASKS})
    """`caption`: the decoder says the text after `prefix`. `vqa`: after the question. `statement`: true or false after
    the statement."""
    files: list[str]
    """Read one after the other. `{00000..00331}` in a name stands for that many files."""
    format: str = field(default="llava", metadata={"choices": FORMATS})
    """`llava` (JSON, JSONL or shards), `coco` (captions_*.json), `karpathy` (dataset_*.json, its train and restval),
    `tsv` (a text and an image path a line, as CC3M, CC12M and SBU come once their images are here), `visual_genome`
    (region descriptions), `vsr` (statements, JSONL), `vqav2` (its questions and its annotations), `webdataset` (tar
    shards, see `data.shards`)."""
    image_folder: str | None = None
    """Folder that the files' image paths are relative to; shards need none."""
    weight: float = field(default=1.0, metadata=number(above=0))
    """Times that the source is gone through in an epoch; .2 takes another fifth of it in each."""
    prefix: str = ""
    """What a caption follows, as `A picture of`."""

    def __post_init__(self) -> None:
        if not self.files:
            raise ConfigError("`data.mix`: a source has no `files`")
        if self.prefix and self.task != "caption":
            raise ConfigError(f"`data.mix`: `prefix` is for captions, and {self.files[0]} is a source of {self.task}")
        captions = [name for name in FORMATS if name not in ("vsr", "vqav2")]
        expected = {"vqa": ("llava", "vqav2", "webdataset"), "statement": ("vsr",)}.get(self.task, captions)
        if self.format not in expected:
            raise ConfigError(
                f"`data.mix`: {self.files[0]} is a source of {self.task} in format `{self.format}`; expected "
                f"{' or '.join(expected)}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """The `data` block."""

    mix: list[SourceConfig]
    """Sources, which learn together in one run."""
    image_aspect_ratio: str = field(default="square", metadata={"choices": ("square", "pad")})
    transparency: str = field(default="white", metadata={"choices": ("white", "ignore")})
    """What transparent images stand on: `white`, as in transformers 5, or `ignore`, as in LLaVA: the colour that is
    stored under a transparent pixel, often black."""
    augment: bool = False
    """Random crops, and flips where the text names no side, as for caption pre-training."""
    reduce_large_images: bool = False
    """Decode a JPEG that is at least four times as large as the tower's pixels at a reduced size: a fifth of the time,
    and nearly the same pixels. LLaVA decodes all."""
    direct_resize: bool = True
    """Resize only what is kept of an image: half of the time, pixels within 1 of 255 of the image processor's."""
    on_error: str = field(default="raise", metadata={"choices": ("raise", "skip")})
    """What to do with a broken sample; `skip` counts, reports, and stops when too many are broken."""
    max_error_share: float = field(default=0.01, metadata=number(low=0, high=1))
    """With `on_error: skip`, the share of a source's samples that may be broken before the run stops."""
    allow_symlinks: bool = False
    """Let links inside an image folder lead out of it."""

    def __post_init__(self) -> None:
        if not self.mix:
            raise ConfigError("`data.mix` is empty; list at least one source")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(LoopConfig):
    """The `train` block."""

    pixels_as_bytes: bool = True
    """Workers give images as bytes, of which the device makes the same pixels: less work, a quarter of the memory."""
    trainable: str = field(default="fusion_and_cross_attention", metadata={"choices": TRAINABLE})
    """What learns, see `lvlm.trainable`."""
    fusion_lr: float | None = field(default=None, metadata=number(above=0))
    """Of `tove_fusion`; none takes `learning_rate`."""
    gate_lr: float | None = field(default=None, metadata=number(above=0))
    """Of the gate in `tove_fusion`; none takes that of all `tove_fusion`."""
    balance_loss_weight: float = field(default=0.01, metadata=number(low=0))
    """Weight of the gate's balance loss beside the text's."""
    label_smoothing: float = field(default=0.1, metadata=number(low=0, below=1))
    """Share of a token's target that is spread over the vocabulary (Prismer's .1)."""
    loss_reduction: str = field(default="mean_per_token", metadata={"choices": LOSS_REDUCTIONS})
    """`mean_per_token` over the global batch: rates and the balance loss's weight mean the same whatever the texts'
    lengths. `sum_per_text`, its mean over the texts, is Prismer's and weighs the balance loss less, the longer they
    are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """One training YAML."""

    model: EncoderDecoderConfig
    data: DataConfig
    train: TrainConfig

    def __post_init__(self) -> None:
        refuse_fsdp(self.train)
        if self.data.augment and self.train.expert_cache is not None:
            raise ConfigError(
                "`data.augment` and `train.expert_cache` exclude each other: a random crop is another image each time, "
                "so nothing would ever be read; leave one of the two out"
            )
