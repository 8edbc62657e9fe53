"""The base model's folder: an ordinary VisionEncoderDecoderModel, experts included."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import nn
from transformers import PreTrainedConfig, VisionEncoderDecoderModel

from ..config.trained import read_model_info
from ..lvlm.build import without_zero3_init
from ..lvlm.prompt_processor import PromptProcessor
from ..storage import WeightsError, load_json, weight_files
from ..tower.configuration import ToVEVisionConfig
from .base import Checkpoint, LoadedCheckpoint
from .experts import CONFIG, Attachment, experts_in_config
from .tensor_files import TensorAt
from .whole import check_report


@dataclass(frozen=True)
class EncoderDecoderCheckpoint(Checkpoint):
    """What scripts/pretrain_base.py writes."""

    kind: ClassVar[str] = "encoder_decoder"
    asked_bare: ClassVar[bool] = True
    holds_tower: ClassVar[bool] = True

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """See `Checkpoint.find`."""
        if not any(folder.glob("model*.safetensors")) or not (folder / CONFIG).is_file():
            return None
        return cls(folder) if load_json(folder / CONFIG).get("model_type") == "vision-encoder-decoder" else None

    def load(self) -> LoadedCheckpoint:
        """See `Checkpoint.load`."""
        model, processor = load_encoder_decoder(self.folder)
        ratio = read_model_info(self.folder).get("image_aspect_ratio", "square")
        return LoadedCheckpoint(checkpoint=self, model=model, processor=processor, image_aspect_ratio=ratio)

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
        return self._write_holding(target, detached, extra, layout)


def load_encoder_decoder(
    folder: str | Path, dtype: torch.dtype | str = "auto"
) -> tuple[VisionEncoderDecoderModel, PromptProcessor]:
    """Model in eval mode and processor of a VisionEncoderDecoderModel folder.

    Args:
        folder: With a ToVE tower or any other encoder.
        dtype: Of all weights; `auto` takes the one on disk.

    Raises:
        WeightsError: Tensors are missing, have another shape or are left over.
    """
    try:
        both = VisionEncoderDecoderModel.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    except WeightsError as error:
        raise WeightsError(f"`{folder}`: {error}") from error
    model, report = cast("tuple[VisionEncoderDecoderModel, dict[str, Any]]", both)  # which the option makes it
    encoder = model.config.encoder
    check_report(report, folder, encoder if isinstance(encoder, ToVEVisionConfig) else None)
    return model.eval(), PromptProcessor.from_pretrained(folder).for_model(model)


def save_encoder_decoder(
    folder: str | Path,
    tensors: dict[str, torch.Tensor],
    model: VisionEncoderDecoderModel,
    processor: PromptProcessor,
) -> None:
    """Write an ordinary VisionEncoderDecoderModel folder. Rank 0 only.

    Args:
        folder: Made when absent.
        tensors: All of the model's, from `lvlm.lora.collect_merged`.
        model: For its configuration.
        processor: The model's.
    """
    dtype = next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())
    with without_zero3_init(), torch.device("meta"):
        shell = VisionEncoderDecoderModel(copy.deepcopy(model.config))
        cast(nn.Module, shell).to(dtype)  # transformers' own `to` loses `self` for type checkers
    cast(PreTrainedConfig, shell.config.decoder).use_cache = True  # Trainer turned it off
    shell.generation_config = model.generation_config
    processor.save_pretrained(folder)
    shell.save_pretrained(folder, state_dict=tensors)
