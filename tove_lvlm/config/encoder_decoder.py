"""What the base model is made of, ToVE without a large language model: a vision tower and a text decoder that looks at
its tokens by cross-attention (transformers' `VisionEncoderDecoderModel`). The `model` block of its YAMLs.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from .parsing import DERIVED
from .tower import TowerConfig

TRAINABLE = ("fusion_and_cross_attention", "language_model", "all_but_backbones")
"""Names of what a run may train, see `lvlm.trainable`."""


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
    tower_config: TowerConfig | None = dataclasses.field(default=None, metadata=DERIVED)
    """What that YAML holds, once it is read."""
    detached: list[str] = dataclasses.field(default_factory=list)
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
