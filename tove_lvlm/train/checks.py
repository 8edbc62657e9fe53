"""Load a training YAML and check everything that can be checked before torch is imported. DESIGN.md section 4.

Paths come out absolute, so that the resolved YAML in the run folder works from anywhere.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from .. import config as configs
from ..config import ConfigError
from ..registry import nearest
from ..storage import ASSETS
from ..tower.configuration_yaml import read_tower_yaml
from .config import RunConfig
from .deepspeed_json import read_deepspeed

STAGES = ("pretrain", "finetune")
PROJECTOR_FILE = "projector.safetensors"


def load_run(stage: str, cfg_path: str | Path, options: Sequence[str] = ()) -> RunConfig:
    """Read, type-check and resolve the configuration of one stage.

    Args:
        stage: `pretrain` or `finetune`.
        cfg_path: The YAML.
        options: `a.b=c` strings.

    Raises:
        ConfigError: One line that names the key.
    """
    run = configs.load(RunConfig, cfg_path, options)
    base = Path(cfg_path).resolve().parent
    model, data, train = run.model, run.data, run.train
    if stage == "pretrain" and run.lora.lora_enable:
        raise ConfigError("`lora.lora_enable` is true, but stage 1 keeps the language model frozen; it is for stage 2")
    if stage == "pretrain" and train.save_merged:
        raise ConfigError("`train.save_merged` is true, but stage 1 has nothing to merge; it is for stage 2")
    if train.freeze_mm_mlp_adapter and stage == "finetune":
        raise ConfigError("`train.freeze_mm_mlp_adapter` is true, but stage 2 trains the projector; it is for stage 1")
    if train.freeze_mm_mlp_adapter and not model.is_whole and model.pretrain_mm_mlp_adapter is None:
        raise ConfigError(
            "`train.freeze_mm_mlp_adapter` is true, but the projector is a new one; name a whole LLaVA folder in "
            "`model.llm` and `model.vision_tower`, or `model.pretrain_mm_mlp_adapter`"
        )
    run = dataclasses.replace(
        run,
        model=dataclasses.replace(
            model,
            llm=resolve("model.llm", model.llm, base, "folder", hub=True),
            vision_tower=_vision_tower(model.vision_tower, base),
            tower=resolve("model.tower", model.tower, base, "file"),
            clip=resolve("model.clip", model.clip, base, "folder", hub=True),
            pretrain_mm_mlp_adapter=_adapter(model.pretrain_mm_mlp_adapter, base),
        ),
        data=dataclasses.replace(
            data,
            train=[resolve(f"data.train[{i}]", path, base, "file") for i, path in enumerate(data.train)],
            image_folder=resolve("data.image_folder", data.image_folder, base, "folder"),
        ),
        train=dataclasses.replace(
            train,
            output_dir=str(Path(train.output_dir).expanduser().resolve()),
            deepspeed=resolve("train.deepspeed", train.deepspeed, base, "file"),
        ),
    )
    if Path(run.train.output_dir).exists() and not Path(run.train.output_dir).is_dir():
        raise ConfigError(f"`train.output_dir`: `{train.output_dir}` exists and is not a folder")
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if run.train.deepspeed is not None:
        read_deepspeed(run.train.deepspeed, run.train, world_size)
    elif world_size > 1:
        raise ConfigError(f"`train.deepspeed` is empty, but there are {world_size} ranks; name a DeepSpeed JSON")
    if run.model.tower is not None:
        read_tower_yaml(run.model.tower)
    return run


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


def _vision_tower(source: str, base: Path) -> str:
    if source in ("tove", "clip"):
        return source
    if not source.startswith(("shipped:", ".", "/", "~")) and "/" not in source and not Path(source).exists():
        hint = nearest(source, ["tove", "clip"])
        raise ConfigError(f"`model.vision_tower` is `{source}`; expected `tove`, `clip` or a folder; {hint}")
    folder = resolve("model.vision_tower", source, base, "folder")
    if not (Path(folder) / "config.json").is_file():
        raise ConfigError(f"`model.vision_tower`: folder `{source}` has no config.json")
    return folder


def _adapter(source: str | None, base: Path) -> str | None:
    folder = resolve("model.pretrain_mm_mlp_adapter", source, base, "folder")
    if folder is not None and not (Path(folder) / PROJECTOR_FILE).is_file():
        raise ConfigError(
            f"`model.pretrain_mm_mlp_adapter`: folder `{source}` has no {PROJECTOR_FILE}; it must be the output_dir of "
            "a finished scripts/pretrain_projector.py"
        )
    return folder
