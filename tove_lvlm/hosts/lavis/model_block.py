"""LAVIS's `model` block for the architectures `tove_caption` and `tove_vqa`.

model:
  arch: tove_caption
  model_type: miniature        # its defaults are in models/miniature.yaml
  vit_model: tove:PATH         # the tower, as for BLIP-2
  decoder: FacebookAI/roberta-base

See docs/hosts.md, "LAVIS".
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...config import ConfigError, parse
from ...config.encoder_decoder import LOSS_REDUCTIONS, TRAINABLE, EncoderDecoderConfig
from ...config.ranges import number
from ...config.sources import local_path, resolve_path
from ...tower.from_yaml import read_tower_yaml
from ..names import read_tower_config, tower_path

if TYPE_CHECKING:
    from ...tower.configuration import ToVEVisionConfig

ARCHITECTURES = ("tove_caption", "tove_vqa")
MODEL_TYPES = {path.stem: str(path) for path in sorted(Path(__file__).with_name("models").glob("*.yaml"))}
"""`model_type` -> YAML with its defaults, absolute."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelBlock:
    """The block, defaults of its `model_type` included. What a key has here and in `config.encoder_decoder` is the
    same thing.
    """

    arch: str = ""
    model_type: str = ""
    pretrained: str | None = None
    """Where the model starts: the output_dir of scripts/pretrain_base.py or finetune_base.py, in place of `vit_model`
    and `decoder`; or a checkpoint of LAVIS's runner, on top of them."""
    load_pretrained: bool = True
    """Whether `pretrained` is read."""
    finetuned: str | None = None
    """A checkpoint of LAVIS's runner, read in place of one in `pretrained` when `load_finetuned` says so."""
    load_finetuned: bool = False
    vit_model: str
    decoder: str
    detached: list[str] = dataclasses.field(default_factory=list)
    trainable: str = dataclasses.field(default="fusion_and_cross_attention", metadata={"choices": TRAINABLE})
    prompt: str = ""
    """What a caption follows."""
    label_smoothing: float = dataclasses.field(default=0.1, metadata=number(low=0, below=1))
    loss_reduction: str = dataclasses.field(default="mean_per_token", metadata={"choices": LOSS_REDUCTIONS})
    """Over the batch of one process, where this package's own training divides by the tokens of the global batch."""
    balance_loss_weight: float = dataclasses.field(default=0.01, metadata=number(low=0))

    def __post_init__(self) -> None:
        if self.load_finetuned and self.finetuned is None:
            raise ConfigError("`model.load_finetuned` is true and `model.finetuned` is empty; name a checkpoint in it")

    @property
    def folder(self) -> Path | None:
        """Of the finished run that the model starts from, if it does."""
        path = local_path(self.pretrained) if self.load_pretrained and self.pretrained is not None else None
        return path if path is not None and path.is_dir() else None

    @property
    def checkpoint(self) -> str | None:
        """File or URL of LAVIS's own checkpoint, if there is one to load."""
        if self.load_finetuned:
            return self.finetuned
        return self.pretrained if self.load_pretrained and self.folder is None else None


def read_block(cfg: Any) -> ModelBlock:
    """The block of a LAVIS YAML.

    Args:
        cfg: OmegaConf's or a plain dict.

    Raises:
        ConfigError: A key is unknown or a value does not fit.
    """
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
    return parse(ModelBlock, cast("dict[str, Any]", plain), where="LAVIS's `model` block")


def model_config(block: ModelBlock) -> EncoderDecoderConfig:
    """What this package's own builder takes; paths are relative to the working directory.

    Raises:
        UserError: The tower, the decoder or the folder is not there or is another thing.
    """
    if block.folder is not None:
        _check_folder(block.folder)
        return EncoderDecoderConfig(pretrained=str(block.folder), detached=block.detached)
    decoder = resolve_path("model.decoder", block.decoder, ".", "folder", hub=True)
    path = tower_path(block.vit_model, "model.vit_model")
    if path.is_dir():
        return EncoderDecoderConfig(decoder=decoder, vision_tower=str(path), detached=block.detached)
    return EncoderDecoderConfig(
        decoder=decoder, tower=str(path), tower_config=read_tower_yaml(path), detached=block.detached
    )


def tower_config(block: ModelBlock) -> "ToVEVisionConfig":
    """The architecture of the block's tower; no weight is read.

    Raises:
        UserError: As for `model_config`.
    """
    if block.folder is None:
        return read_tower_config(tower_path(block.vit_model, "model.vit_model"))
    from transformers import AutoConfig

    from ...storage.pretrained import read_pretrained

    _check_folder(block.folder)
    return cast("ToVEVisionConfig", read_pretrained(AutoConfig, block.folder).encoder)


def _check_folder(folder: Path) -> None:
    from ...checkpoints.encoder_decoder import EncoderDecoderCheckpoint

    if EncoderDecoderCheckpoint.find(folder) is None:
        raise ConfigError(
            f"`model.pretrained`: folder `{folder}` holds no base model; expected the output_dir of a finished "
            "scripts/pretrain_base.py, or a checkpoint file of LAVIS's runner"
        )
