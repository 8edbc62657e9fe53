"""The base model's folder: an ordinary VisionEncoderDecoderModel, experts included."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self, cast

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, VisionEncoderDecoderModel

from ..lvlm.build import without_zero3_init
from ..lvlm.prompt_processor import PromptProcessor
from ..storage import load_json
from ..storage.pretrained import load_pretrained, read_pretrained
from ..tower.configuration import ToVEVisionConfig
from .base import LoadedCheckpoint
from .experts import CONFIG
from .whole import WholeCheckpoint, detached_parts


@dataclass(frozen=True)
class EncoderDecoderCheckpoint(WholeCheckpoint):
    """What scripts/pretrain_base.py writes."""

    kind: ClassVar[str] = "encoder_decoder"
    is_bare: ClassVar[bool] = True

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """See `Checkpoint.find`."""
        if not any(folder.glob("model*.safetensors")) or not (folder / CONFIG).is_file():
            return None
        return cls(folder) if load_json(folder / CONFIG).get("model_type") == "vision-encoder-decoder" else None

    def load(self) -> LoadedCheckpoint:
        """See `Checkpoint.load`."""
        model, processor = load_encoder_decoder(self.folder)
        return self._loaded(model, processor, "square")


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
    encoder = read_pretrained(AutoConfig, folder).encoder
    optional = detached_parts(encoder if isinstance(encoder, ToVEVisionConfig) else None)
    model: VisionEncoderDecoderModel = load_pretrained(
        VisionEncoderDecoderModel, folder, dtype=dtype, optional=optional, leftovers=False
    )
    return model.eval(), read_pretrained(PromptProcessor, folder).for_model(model)


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
