"""What an LVLM is made of: the `model` and `lora` blocks. Key names are LLaVA's flags."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..errors import ConfigError
from .parsing import DERIVED, Deprecated
from .ranges import number
from .tower import TowerConfig

MODEL_FILE = "tove_model.json"
"""Beside a model's weights: the `model` block that it was built from, and what else loading must know."""
PLAIN_TEMPLATE = "plain"
"""LLaVA's stage 1: images, then the caption."""
V1_TEMPLATE = "v1"
"""LLaVA's conversation, as `model.chat_template` names it."""
PROJECTOR_FILE = "projector.safetensors"
"""Stage 1's result, in the folder that `pretrain_mm_mlp_adapter` names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The `model` block of a training YAML."""

    llm: str
    """Hub id or folder of a causal language model with its tokenizer."""
    llm_architecture: dict[str, Any] | None = None
    """Fields of its configuration with `model_type`, for sizes where the hub cannot be asked (`tove info`)."""
    chat_template: str | None = None
    """Conversation of stage 2 and of asking: `v1` (LLaVA's, for a tokenizer that ends texts with `</s>`), a file of
    Jinja, or none: the language model's own chat template where it has one, else `v1`."""
    vision_tower: str = "tove"
    """`tove` (built from `tower`), `clip` (the CLIP-only baseline), or a folder with a saved tower or CLIP. The folder
    that `llm` names too is a whole LLaVA model (of `tove graft`, of stage 2), whose tower and projector go on."""
    tower: str | None = None
    """YAML of the tower; with `vision_tower: clip` its `clip` entry says which CLIP."""
    tower_config: TowerConfig | None = field(default=None, metadata=DERIVED)
    """What that YAML holds, once it is read."""
    detached: list[str] = field(default_factory=list)
    """Experts of the ToVE tower that are neither loaded nor run, besides those that the tower itself says."""
    clip: str | None = None
    """Hub id or folder of the CLIP for `vision_tower: clip`; none takes the tower YAML's."""
    mm_vision_select_layer: int = field(default=-2, metadata=number(low=-1000, high=1000))
    """CLIP layer whose patch tokens are used with a plain CLIP; a ToVE tower has its own `select_layer`."""
    pretrain_mm_mlp_adapter: str | None = None
    """Folder written by stage 1, whose projector and `tove_fusion` are the start."""

    DEPRECATED: ClassVar = {"mm_projector_type": Deprecated(only="mlp2x_gelu")}

    def __post_init__(self) -> None:
        if not self.llm:
            raise ConfigError("`model.llm` is empty; give a hub id or a folder")
        if self.vision_tower == "tove" and self.tower is None:
            raise ConfigError("`model.vision_tower` is `tove`, so `model.tower` must name the tower's YAML")
        if self.vision_tower == "clip" and self.detached:
            raise ConfigError("`model.detached` names experts, but `model.vision_tower` is `clip`, which has none")
        if self.vision_tower == "clip" and self.clip is None and self.tower is None:
            raise ConfigError("`model.vision_tower` is `clip`, so `model.clip` or `model.tower` must say which CLIP")

    def require_tower(self) -> str:
        """`tower`, where the tower is built from it or the CLIP is read from it.

        Raises:
            ConfigError: It is not given.
        """
        if self.tower is None:
            raise ConfigError("`model.tower` must name the tower's YAML")
        return self.tower

    @property
    def is_whole(self) -> bool:
        """Whether the start is one whole LLaVA folder instead of parts."""
        return self.llm == self.vision_tower


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """The `lora` block: peft's LoRA on the language model's linear layers."""

    lora_enable: bool = False
    """Train the language model by LoRA in stage 2; false trains all of its weights."""
    lora_r: int = field(default=64, metadata=number(low=1))
    lora_alpha: int = field(default=16, metadata=number(low=1))
    lora_dropout: float = field(default=0.05, metadata=number(low=0, below=1))
    use_dora: bool = False
    """DoRA, by peft's key: the length of each output's weights is trained too. Slower."""
    use_rslora: bool = False
    """Rank-stabilised LoRA, by peft's key: scaled by alpha over the root of r."""

    DEPRECATED: ClassVar = {"lora_bias": Deprecated(only="none")}
