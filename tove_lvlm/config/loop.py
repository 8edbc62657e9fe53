"""What every kind of training has in its YAML: the `train` block's keys that the engine reads.

See docs/design.md, "Configuration".
"""

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from ..errors import ConfigError
from .deepspeed import DeepSpeedConfig, read_deepspeed
from .parsing import DERIVED
from .ranges import number
from .sources import resolve_path

SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup")
REPORTERS = ("none", "tensorboard", "wandb")
CACHE_DTYPES = ("float16", "float32", "int8")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """What the `train` block of every stage holds. Key names are LLaVA's flags."""

    output_dir: str
    """Where checkpoints, logs and results go; relative to the working directory."""
    deepspeed: str | None = None
    """DeepSpeed JSON; none trains one rank with plain torch, or any number with `fsdp`."""
    deepspeed_config: DeepSpeedConfig | None = field(default=None, metadata=DERIVED)
    """What that JSON holds, once it is read."""
    fsdp: bool = False
    """Divide the language model and all that is trained among the ranks with torch's FSDP2, without DeepSpeed; for
    LLaVA's two stages. See docs/design.md, "Training"."""
    per_device_train_batch_size: int = field(default=1, metadata=number(low=1))
    gradient_accumulation_steps: int = field(default=1, metadata=number(low=1))
    learning_rate: float = field(default=1e-3, metadata=number(above=0))
    """Of everything trainable that has no rate of its own."""
    max_steps: int = field(default=-1, metadata=number(low=1, also=(-1,)))
    """Optimizer steps; -1 takes `num_train_epochs`."""
    num_train_epochs: float = field(default=1.0, metadata=number(above=0))
    lr_scheduler_type: str = field(default="cosine", metadata={"choices": SCHEDULES})
    warmup_ratio: float = field(default=0.03, metadata=number(low=0, below=1))
    weight_decay: float = field(default=0.0, metadata=number(low=0))
    max_grad_norm: float = field(default=1.0, metadata=number(low=0))
    adam_beta1: float = field(default=0.9, metadata=number(low=0, below=1))
    adam_beta2: float = field(default=0.999, metadata=number(low=0, below=1))
    adam_epsilon: float = field(default=1e-8, metadata=number(above=0))
    bf16: bool = False
    """Weights and arithmetic in bfloat16 (fp32 master weights under DeepSpeed)."""
    tf32: bool = False
    gradient_checkpointing: bool = False
    gradient_checkpointing_every_n_layers: int = field(default=1, metadata=number(low=1))
    """Recompute only every n-th layer's activations and keep the others': faster, as far as memory lasts."""
    save_steps: int = field(default=500, metadata=number(low=1))
    save_total_limit: int | None = field(default=1, metadata=number(low=1))
    logging_steps: int = field(default=10, metadata=number(low=1))
    report_to: str = field(default="none", metadata={"choices": REPORTERS})
    gate_panels_steps: int = field(default=0, metadata=number(low=0))
    """Optimizer steps after which, and after the last, the gate over a few pictures is drawn into tensorboard's events,
    as by `tove gates`; 0 never. The training is the same. See docs/design.md, "Training"."""
    gate_panels_images: list[str] = field(default_factory=list)
    """Those pictures; when empty, the first four of the training data."""
    seed: int = field(default=42, metadata=number(low=0, high=2**32 - 1))
    dataloader_num_workers: int = field(default=4, metadata=number(low=0))
    """Processes for each rank that read and prepare images; 0 does it between the steps."""
    num_threads: int | None = field(default=None, metadata=number(low=1))
    """Torch threads per rank; none takes OMP_NUM_THREADS, else cores / local ranks (CPU only)."""
    resume: bool = True
    """Go on from the newest complete checkpoint in `output_dir`; false starts over and moves old ones aside."""
    trust_checkpoint: bool = False
    """Resume under DeepSpeed from a checkpoint that this user did not write: DeepSpeed unpickles its files, which can
    run code. See SECURITY.md."""
    stall_timeout: float = field(default=1800.0, metadata=number(low=0))
    """Seconds without a finished step after which the run is stopped; 0 never."""
    expert_cache: str | None = None
    """Folder where what the frozen CLIP and experts gave for each image is kept and read from, by any number of runs;
    relative to the working directory. When it pays: docs/design.md, "Expert cache"."""
    expert_cache_dtype: str = field(default="float16", metadata={"choices": CACHE_DTYPES})
    """How features are kept there; `float32` gives the same bits as without a cache."""
    expert_cache_size_gb: float | None = field(default=None, metadata=number(above=0))
    """Size of that folder, in units of 10^9 bytes, beyond which nothing is added; none for no limit."""
    expert_channels_last: bool = False
    """Weights and pixels of convolutional experts in torch's `channels_last` memory format. Of this and the two below:
    docs/design.md, "Speed of the experts"."""
    expert_compile: bool = False
    """Run CLIP's and each expert's forward through `torch.compile`."""
    expert_streams: bool = False
    """Run each expert on a CUDA stream of its own."""


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
    cache = None if train.expert_cache is None else Path(train.expert_cache).expanduser().resolve()
    if cache is not None and (cache == output_dir or cache in output_dir.parents):
        raise ConfigError(
            f"`train.expert_cache`: `{train.expert_cache}` is or contains `train.output_dir`; name a folder of its own"
        )
    deepspeed, world_size = resolve_path("train.deepspeed", train.deepspeed, base, "file"), _world_size()
    if deepspeed is None and world_size > 1 and not train.fsdp:
        raise ConfigError(
            f"`train.deepspeed` is empty, but there are {world_size} ranks; name a DeepSpeed JSON, or give "
            "train.fsdp=true"
        )
    if deepspeed is not None and train.fsdp:
        raise ConfigError("`train.deepspeed` names a file and `train.fsdp` is true; train.deepspeed=null leaves FSDP2")
    deepspeed_config = None if deepspeed is None else read_deepspeed(deepspeed, train, world_size)
    if deepspeed_config is not None and deepspeed_config.zero_stage == 3:
        _check_zero3(train)
    if train.gate_panels_steps:
        _check_gate_panels(train)
    images = [resolve_path("train.gate_panels_images", image, base, "file") for image in train.gate_panels_images]
    return dataclasses.replace(
        train,
        output_dir=str(output_dir),
        gate_panels_images=cast("list[str]", images),
        expert_cache=None if cache is None else str(cache),
        deepspeed=deepspeed,
        deepspeed_config=deepspeed_config,
    )


def refuse_fsdp(train: LoopConfig) -> None:
    """For stages without a language model to divide.

    Raises:
        ConfigError: FSDP2 is asked for.
    """
    if train.fsdp:
        raise ConfigError(
            "`train.fsdp` divides the language model of LLaVA's two stages, and there is none here; leave it out, and "
            "name a DeepSpeed JSON in `train.deepspeed` for several ranks"
        )


def refuse_gate_panels(train: LoopConfig) -> None:
    """For stages that train no gate.

    Raises:
        ConfigError: Panels are asked for.
    """
    if train.gate_panels_steps:
        raise ConfigError(
            "`train.gate_panels_steps` draws the gate as it learns, and merging leaves it as it is; leave it out "
            "(`tove gates` draws it)"
        )


def _check_gate_panels(train: LoopConfig) -> None:
    if train.report_to != "tensorboard":
        raise ConfigError(
            f"`train.gate_panels_steps` draws into tensorboard's events, and `train.report_to` is {train.report_to}; "
            "give train.report_to=tensorboard, or train.gate_panels_steps=0"
        )
    if train.fsdp:
        raise ConfigError(
            "`train.gate_panels_steps` does not go with `train.fsdp`, which holds weights in pieces that rank 0 alone "
            "cannot run; leave one of them out"
        )


def _check_zero3(train: LoopConfig) -> None:
    reasons = {
        "expert_channels_last": "holds weights in pieces, flat, which have no memory format",
        "expert_compile": "gathers weights at every layer, where a compiled graph would end",
        "gate_panels_steps": "holds weights in pieces, which rank 0 alone cannot run",
        "expert_streams": "gathers weights on streams of its own, which know nothing of those of the experts",
    }
    for key, reason in reasons.items():
        if getattr(train, key):
            raise ConfigError(f"`train.{key}` does not go with ZeRO-3, which {reason}; leave it out, or use ZeRO-2")


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))
