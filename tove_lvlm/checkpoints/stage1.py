"""Stage 1's folder: projector and `tove_fusion`, and references to everything frozen."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from ..config.model import PROJECTOR_FILE
from ..lvlm.parts import base_model
from ..storage import save_tensors
from .base import Checkpoint, LoadedCheckpoint
from .experts import Attachment, experts_of_block
from .from_config import build_lvlm
from .model_info import check_places, own_template, read_model_block
from .tensor_files import TensorAt
from .write_experts import write_referring


@dataclass(frozen=True)
class Stage1Checkpoint(Checkpoint):
    """What scripts/pretrain_projector.py writes."""

    kind: ClassVar[str] = "stage1"

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """See `Checkpoint.find`; a stage 2 in the same folder comes first."""
        has_weights = any(folder.glob("model*.safetensors")) or (folder / "adapter").is_dir()
        return cls(folder) if (folder / PROJECTOR_FILE).is_file() and not has_weights else None

    def load(self) -> LoadedCheckpoint:
        """See `Checkpoint.load`."""
        start = {"pretrain_mm_mlp_adapter": str(self.folder), "chat_template": own_template(self.folder)}
        block = read_model_block(self.folder, **start)
        check_places(block, self.folder)
        model, processor = build_lvlm(block)
        return self._loaded(model.eval(), processor)

    def experts(self) -> Attachment:
        """See `Checkpoint.experts`."""
        return experts_of_block(self.folder)

    @property
    def holds_experts(self) -> bool:
        """It never does."""
        return False

    @property
    def frozen_llm(self) -> str | None:
        """The one that stage 1 started from."""
        return read_model_block(self.folder).llm

    def weight_files(self) -> list[Path]:
        """See `Checkpoint.weight_files`."""
        return [self.folder / PROJECTOR_FILE]

    def _write_model(self, target: Path, detached: list[str], extra: Mapping[str, TensorAt], layout: Path) -> list[str]:
        return write_referring(self, target, detached, extra)


def save_stage1(folder: str | Path, tensors: dict[str, torch.Tensor], model: nn.Module, processor: Any) -> None:
    """Write tensors, configuration, tokenizer and processor. Rank 0 only.

    Args:
        folder: Made when absent.
        tensors: From `collect_projector`.
        model: For its configuration.
        processor: From `build_lvlm`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    processor.save_pretrained(folder)
    base_model(model).config.save_pretrained(folder)
    save_tensors(folder / PROJECTOR_FILE, tensors, metadata={"format": "pt"})  # last: its presence means finished
