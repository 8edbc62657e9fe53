"""What a stage of training is: the contract between this engine and the recipes (recipes/), which are stages.

The engine knows ranks, DeepSpeed, resuming, guards and the run's folder. A stage knows its configuration, its model and
data, and what it writes; scripts/ and cli/ hand it to the engine. Nothing here imports torch.

See docs/architecture.md, "The life of a YAML key".
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast, overload

from ..config import ConfigError, UserError, load, to_dict
from ..config.loop import resolve_loop
from ..config.sources import WeightSource, resolve_path
from ..storage import refuse_inputs


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What is drawn of the model while it is trained."""

    every: int
    """Optimizer steps."""
    draw: Callable[[], Mapping[str, Any]]
    """Pictures of the model as it is, (H, W, 3) uint8, by their names in tensorboard. Called on rank 0 alone, in eval
    mode, between two steps; it may not call the other ranks."""


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
    identity_before: dict[str, Any] = field(default_factory=dict)
    """Values of those keys for a checkpoint that was written before there were such keys."""
    results: Callable[[Any], Callable[[Path], None]]
    """Called on every rank with the trainer at the end, to gather; what it returns writes into an empty folder, on rank
    0 only, whose entries then take their places in `output_dir`."""
    close: Callable[[], None] = lambda: None
    """Called on every rank when the run ends, however it ends."""
    layers: Sequence[Any] = ()
    """Modules of the model that `train.fsdp` gathers one at a time."""
    pictures: Pictures | None = None
    """Into tensorboard's events, which `train.report_to` must name."""
    trainer_class: type | None = None
    """Of the engine's kind, for a loss or rates of its own."""
    trainer_arguments: dict[str, Any] = field(default_factory=dict)


class Resolve(Protocol):
    """Absolute path of what a key of the YAML names, or its hub id, checked; None of None. See `resolve_path`."""

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
            resolve: `resolve(key, source, kind, hub=False)`, see `config.sources.resolve_path`.

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


def load_run(stage: Stage, cfg_path: str | Path, options: Sequence[str] = ()) -> Any:
    """Read, type-check and resolve the configuration of one stage.

    Args:
        stage: The stage.
        cfg_path: The YAML.
        options: `a.b=c` strings.

    Raises:
        ConfigError: One line that names the key.
    """
    return resolve_run(stage, load(stage.schema, cfg_path, options), Path(cfg_path).resolve().parent)


def resolve_run(stage: Stage, config: Any, base: Path) -> Any:
    """Make paths absolute, so that the `run.yaml` of the output folder works from anywhere, and read what they name.

    Args:
        stage: The stage.
        config: Of its schema, as it was read.
        base: What paths that start with ./ or ../ are relative to.

    Raises:
        ConfigError: One line that names the key.
    """
    inputs: list[str] = []

    def resolve(key: str, source: str | None, kind: str, hub: bool = False) -> str | None:
        path = resolve_path(key, source, base, kind, hub)
        if path is not None and not key.endswith("image_folder"):  # where names are looked up, not itself an input
            inputs.append(path)
        return path

    config = stage.resolve_paths(config, cast(Resolve, resolve))
    config = dataclasses.replace(config, train=resolve_loop(config.train, base))
    inputs += _weights(config)
    output = Path(config.train.output_dir)
    goes_on = config.train.resume and any(output.glob("checkpoint-*"))
    try:
        refuse_inputs(output, filter(os.path.exists, inputs), may_contain=goes_on)
    except UserError as error:
        raise ConfigError(f"`train.output_dir`: {error}") from error
    return config


def _weights(config: Any) -> list[str]:
    """Where the weights of all parts of a tower are read from, anywhere in a configuration."""
    if isinstance(config, WeightSource):
        return [] if config.pretrained is None else [config.pretrained]
    if dataclasses.is_dataclass(config):
        return [path for field in dataclasses.fields(config) for path in _weights(getattr(config, field.name))]
    return [path for one in config for path in _weights(one)] if isinstance(config, list | tuple) else []
