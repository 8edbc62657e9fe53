"""A whole LLaVA folder of transformers' layout, loaded without a random tensor."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import torch
from transformers import AutoConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from ..config import UserError
from ..lvlm.processor import adopt_chat_template
from ..storage import load_json, weight_files
from ..storage.pretrained import load_pretrained, read_pretrained
from ..tower.configuration import ToVEVisionConfig
from .base import Checkpoint
from .experts import Attachment, experts_in_config
from .tensor_files import TensorAt
from .write_experts import write_holding


@dataclass(frozen=True)
class WholeCheckpoint(Checkpoint):
    """A whole model of transformers' layout, whatever its kind: all of it is in its own files."""

    holds_tower: ClassVar[bool] = True

    def experts(self) -> Attachment:
        """See `Checkpoint.experts`."""
        return experts_in_config(self.folder)

    @property
    def holds_experts(self) -> bool:
        """It always does."""
        return True

    def weight_files(self) -> list[Path]:
        """See `Checkpoint.weight_files`."""
        return weight_files(self.folder)

    def _write_model(self, target: Path, detached: list[str], extra: Mapping[str, TensorAt], layout: Path) -> list[str]:
        return write_holding(self, target, detached, extra, layout)


def read_llava_config(folder: str | Path) -> LlavaConfig:
    """The configuration of a LlavaForConditionalGeneration folder.

    Raises:
        UserError: The folder holds something else.
    """
    config = load_json(Path(folder) / "config.json")
    kind = config.get("model_type")
    if kind == "llava_llama" or "mm_vision_tower" in config:
        raise UserError(
            f"`{folder}` has the layout of LLaVA's own code; bring it to transformers' with `tove export --format "
            "transformers` first"
        )
    if kind != "llava":
        raise UserError(f"`{folder}` holds a model of type `{kind}`; expected a LLaVA model (`llava`)")
    return cast(LlavaConfig, read_pretrained(AutoConfig, folder))


def load_whole(
    folder: str | Path, dtype: torch.dtype | str = "auto"
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Model in eval mode and processor of a LlavaForConditionalGeneration folder.

    Args:
        folder: With either kind of vision tower.
        dtype: Of all weights; `auto` takes the one on disk.

    Raises:
        UserError: The folder holds something else, or the model would read its ToVE tower without the experts.
        ConfigError: Its chat template cannot be asked with.
        WeightsError: Tensors are missing, have another shape or are left over.
    """
    config = read_llava_config(folder)
    layer, strategy = config.vision_feature_layer, config.vision_feature_select_strategy
    tower = config.vision_config if isinstance(config.vision_config, ToVEVisionConfig) else None
    if tower is not None and (layer not in (-1, 1) or strategy != "full"):
        raise UserError(
            f"{folder}/config.json: `vision_feature_layer` is {layer} and `vision_feature_select_strategy` is "
            f"`{strategy}`; a ToVE tower is read with -1 and `full`"
        )
    model: LlavaForConditionalGeneration = load_pretrained(
        LlavaForConditionalGeneration, folder, dtype=dtype, optional=detached_parts(tower), leftovers=False
    )
    processor = read_pretrained(LlavaProcessor, folder)
    adopt_chat_template(processor)
    return model.eval(), processor


def detached_parts(tower: ToVEVisionConfig | None) -> list[str]:
    """Parts of the names of detached experts' weights, which may lie in a folder or not.

    Args:
        tower: The tower's configuration; None where it is no ToVE tower.
    """
    return [f".experts.{name}." for name in tower.detached] if tower is not None else []
