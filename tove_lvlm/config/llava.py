"""YAML of LLaVA's two stages. Key names are LLaVA's flags.

See docs/design.md, "Configuration".
"""

from dataclasses import dataclass, field

from ..errors import ConfigError
from .loop import LoopConfig
from .model import PLAIN_TEMPLATE, LoraConfig, ModelConfig
from .ranges import number


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """The `data` block."""

    train: list[str]
    """LLaVA JSON or JSONL files, webdataset's tar shards (see `data.shards`), or tables with images inside (parquet, or
    folders that `datasets` saved, see `data.tables`), concatenated in this order. `{00000..00331}` in a name stands for
    that many files."""
    image_folder: str | None = None
    """Folder that the samples' `image` paths are relative to; none for text-only data and for shards."""
    image_aspect_ratio: str = field(default="square", metadata={"choices": ("square", "pad")})
    """`pad` pads to a square with the image mean before resizing, as LLaVA-1.5 does in stage 2."""
    transparency: str = field(default="white", metadata={"choices": ("white", "ignore")})
    """What transparent images stand on: `white`, as in transformers 5, or `ignore`, as in LLaVA: the colour that is
    stored under a transparent pixel, often black."""
    reduce_large_images: bool = False
    """Decode a JPEG that is at least four times as large as the tower's pixels at a reduced size: a fifth of the time,
    and nearly the same pixels. LLaVA decodes all."""
    direct_resize: bool = True
    """Resize only what is kept of an image: half of the time, pixels within 1 of 255 of the image processor's."""
    caption_template: str = field(default=PLAIN_TEMPLATE, metadata={"choices": (PLAIN_TEMPLATE, "chat")})
    """What stage 1 learns from a caption: `plain`, LLaVA's, the image and then the caption; `chat`, what stage 2 learns
    from a conversation (`model.chat_template`). With a tokenizer that puts no BOS first nothing stands before the
    image in `plain`; from few captions `chat` was read off the pictures sooner (docs/design.md, "Conversations")."""
    on_error: str = field(default="raise", metadata={"choices": ("raise", "skip")})
    """What to do with a broken sample; `skip` counts, reports, and stops when too many are broken."""
    max_error_share: float = field(default=0.01, metadata=number(low=0, high=1))
    """With `on_error: skip`, the share of samples that may be broken before the run stops (five may always)."""
    allow_symlinks: bool = False
    """Let links inside the image folder lead out of it, as where COCO lies elsewhere; `..` in a sample never does."""

    def __post_init__(self) -> None:
        if not self.train:
            raise ConfigError("`data.train` is empty; list at least one LLaVA JSON file or shard")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(LoopConfig):
    """The `train` block."""

    pixels_as_bytes: bool = True
    """Workers give images as bytes, of which the device makes the same pixels: less work, a quarter of the memory."""
    mm_projector_lr: float | None = field(default=None, metadata=number(above=0))
    """Of the projector and `tove_fusion`; none takes `learning_rate`."""
    fusion_lr: float | None = field(default=None, metadata=number(above=0))
    """Of `tove_fusion`; none takes the projector's."""
    gate_lr: float | None = field(default=None, metadata=number(above=0))
    """Of the gate in `tove_fusion`; none takes that of all `tove_fusion`."""
    freeze_mm_mlp_adapter: bool = False
    """Stage 1: the projector stays as it is and only `tove_fusion` learns, as a grafted tower wants."""
    balance_loss_weight: float = field(default=0.01, metadata=number(low=0))
    """Weight of the gate's balance loss beside the language-model loss."""
    model_max_length: int = field(default=2048, metadata=number(low=1))
    """Tokens per sample, visual tokens included."""
    group_by_modality_length: bool = False
    padding_free: bool = True
    """Concatenate the rows of a micro-batch instead of padding them, where the language model can: same rows, same
    loss, no work for padding."""
    logits_at_labels: bool = True
    """Compute logits only at places that have a label: the same loss, with less memory."""
    chunked_loss: bool = False
    """Compute loss and logits a chunk of tokens at a time: less memory (1 GB at 7B, more with a larger vocabulary) and
    more time. Needs `logits_at_labels` and a torch that can (2.15)."""
    bits: int = field(default=16, metadata={**number(low=4, high=16), "choices": (4, 8, 16)})
    """Bits of the language model's linear layers while LoRA is trained on it: 4 is QLoRA. Needs bitsandbytes."""
    save_merged: bool = False
    """After stage 2, also write the merged model as an ordinary LlavaForConditionalGeneration folder."""

    def __post_init__(self) -> None:
        if self.bits != 16 and self.save_merged:
            raise ConfigError(
                f"`train.save_merged` is true and `train.bits` {self.bits}: a quantised model is not merged; write the "
                "merged model from the adapter afterwards, `tove export ADAPTER --format merged --output DIR`"
            )
        if self.bits != 16 and self.fsdp:
            raise ConfigError(
                f"`train.bits` is {self.bits} and `train.fsdp` is true: FSDP2 cannot divide quantised weights; take "
                "DeepSpeed's ZeRO-2, under which each GPU holds them whole: projects/deepspeed/zero2.json"
            )
        if self.chunked_loss and not self.logits_at_labels:
            raise ConfigError("`train.chunked_loss` needs `train.logits_at_labels: true`")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """One training YAML."""

    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    lora: LoraConfig = field(default_factory=LoraConfig)
