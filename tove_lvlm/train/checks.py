"""Load a training YAML and check everything that can be checked before torch is imported.

Paths come out absolute, so that the resolved YAML in the run folder works from anywhere.

See docs/design.md, "Configuration".
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from .. import config as configs
from ..config import ConfigError
from ..registry import nearest
from ..stage import Resolve, Stage
from ..storage import ASSETS
from .deepspeed_json import read_deepspeed
from .llava_stage import LLAVA_STAGES


def stage_of(stage: Stage | str) -> Stage:
    """The stage itself, or one of LLaVA's by its name."""
    return LLAVA_STAGES[stage] if isinstance(stage, str) else stage


def load_run(stage: Stage | str, cfg_path: str | Path, options: Sequence[str] = ()) -> Any:
    """Read, type-check and resolve the configuration of one stage.

    Args:
        stage: The stage, or the name of one of LLaVA's: `pretrain` or `finetune`.
        cfg_path: The YAML.
        options: `a.b=c` strings.

    Raises:
        ConfigError: One line that names the key.
    """
    config: Any = configs.load(stage_of(stage).schema, cfg_path, options)
    return resolve_paths(stage, config, Path(cfg_path).resolve().parent)


def resolve_paths(stage: Stage | str, config: Any, base: Path) -> Any:
    """Resolve and check a configuration of the stage's schema.

    Args:
        stage: As for `load_run`.
        config: As it was read.
        base: What paths that start with ./ or ../ are relative to.

    Raises:
        ConfigError: One line that names the key.
    """
    from_base = cast(Resolve, lambda key, source, kind, hub=False: resolve(key, source, base, kind, hub))
    config = stage_of(stage).resolve_paths(config, from_base)
    train = dataclasses.replace(
        config.train,
        output_dir=str(Path(config.train.output_dir).expanduser().resolve()),
        deepspeed=resolve("train.deepspeed", config.train.deepspeed, base, "file"),
    )
    if Path(train.output_dir).exists() and not Path(train.output_dir).is_dir():
        raise ConfigError(f"`train.output_dir`: `{config.train.output_dir}` exists and is not a folder")
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if train.deepspeed is not None:
        read_deepspeed(train.deepspeed, train, world_size)
    elif world_size > 1:
        raise ConfigError(f"`train.deepspeed` is empty, but there are {world_size} ranks; name a DeepSpeed JSON")
    return dataclasses.replace(config, train=train)


def resolve(key: str, source: str | None, base: Path, kind: str, hub: bool = False) -> str | None:
    """Absolute path of `source`, or the hub id as it is.

    Args:
        key: Dotted key for the message.
        source: `shipped:NAME`, a path (from `base` when it starts with ./ or ../, else from the working directory),
            or a hub id where `hub` says so.
        base: Folder of the YAML.
        kind: `file` or `folder`.
        hub: Whether `name/name` that is no path may be a hub id.

    Raises:
        ConfigError: It does not exist or is of the other kind.
    """
    if source is None:
        return None
    if source.startswith("shipped:"):
        path = ASSETS / source.removeprefix("shipped:")
    elif source.startswith(("./", "../")):
        path = base / source
    else:
        path = Path(source).expanduser()
    if (path.is_dir() if kind == "folder" else path.is_file()) or (hub and path.is_file()):
        return str(path.resolve())
    if hub and not source.startswith(("shipped:", ".", "/", "~")) and source.count("/") <= 1 and not path.exists():
        return source
    if path.exists():
        raise ConfigError(f"`{key}`: `{source}` is not a {kind}")
    hint = ""
    if path.parent.is_dir():
        hint = "; " + nearest(path.name, [entry.name for entry in path.parent.iterdir()][:200])
    raise ConfigError(f"`{key}`: {kind} `{source}` does not exist (looked at {path}){hint}")
