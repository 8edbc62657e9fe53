"""A saved tower alone, whole or light."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from ..storage import load_json, weight_files
from ..tower.build import build_tower
from ..tower.card import write_card
from ..tower.image_processing import ToVEImageProcessor
from ..tower.parts import SOURCES_FILE, is_light
from .base import Checkpoint, LoadedCheckpoint
from .experts import CONFIG, Attachment, experts_in_config
from .tensor_files import TensorAt
from .write_experts import write_holding


@dataclass(frozen=True)
class TowerCheckpoint(Checkpoint):
    """A ToVE tower as `save_pretrained` writes it."""

    kind: ClassVar[str] = "tower"
    has_language_model: ClassVar[bool] = False
    holds_tower: ClassVar[bool] = True

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """See `Checkpoint.find`."""
        config = folder / CONFIG
        return cls(folder) if config.is_file() and load_json(config).get("model_type") == "tove_vision" else None

    def load(self) -> LoadedCheckpoint:
        """See `Checkpoint.load`."""
        tower = build_tower(self.folder).eval()
        processor = ToVEImageProcessor.for_tower(tower.config)
        return LoadedCheckpoint(checkpoint=self, model=tower, processor=processor, image_aspect_ratio="pad")

    def experts(self) -> Attachment:
        """See `Checkpoint.experts`."""
        return experts_in_config(self.folder)

    @property
    def holds_experts(self) -> bool:
        """A light tower refers to its frozen parts."""
        return not is_light(self.folder)

    def weight_files(self) -> list[Path]:
        """See `Checkpoint.weight_files`."""
        return weight_files(self.folder)

    def without_experts(self, target: Path, detached: Sequence[str]) -> list[str]:
        """See `Checkpoint.without_experts`."""
        written = super().without_experts(target, detached)
        write_card(target, SOURCES_FILE)
        return written

    def _write_model(self, target: Path, detached: list[str], extra: Mapping[str, TensorAt], layout: Path) -> list[str]:
        written = write_holding(self, target, detached, extra, layout)
        write_card(target, SOURCES_FILE)  # the copied card names other experts
        return written
