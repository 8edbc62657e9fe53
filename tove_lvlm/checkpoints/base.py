"""What every form of checkpoint can: tell its experts, be loaded, be written with other experts attached."""

import fnmatch
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration, PreTrainedModel

from ..config import UserError
from ..config.model import MODEL_FILE
from ..config.trained import pixel_settings
from ..lvlm.image_processor import as_trained
from ..lvlm.parts import as_llava, vision_part
from ..lvlm.processor import conversation_of
from ..storage import load_json, new_folder
from ..tower.checkpoint import log_weights
from ..tower.modeling import ToVEVisionModel
from ..tower.parts import SOURCES_FILE
from ..tower.recorder import find_tower
from . import forget
from .experts import CONFIG, MEAN_TERMS, Attachment, no_experts, tower_prefix
from .model_info import check_version
from .rewrite import INDEX, arrange, edit_json, index_of
from .tensor_files import TensorAt, read_header
from .write_experts import mean_terms_file

_ABOUT = (
    "*config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
    "sources.json",
    MODEL_FILE,
    "*.md",
    "LICENSE*",
    "NOTICE*",
)
"""Files of a model that are no weights. What belongs to a run (checkpoints, logs, stage 1 below stage 2) is none."""


@dataclass(frozen=True, kw_only=True)
class LoadedCheckpoint:
    """A checkpoint in memory, on the CPU and in eval mode."""

    checkpoint: "Checkpoint"
    """Where it came from."""
    model: nn.Module
    """The LLaVA model; of a tower's checkpoint, the tower itself."""
    processor: Any
    """Its LlavaProcessor; of a tower's checkpoint, the image processor."""
    image_aspect_ratio: str
    """How images were brought to a square in training."""
    transparency: str = "ignore"
    """What transparent images stood on in training."""

    @property
    def kind(self) -> str:
        """Name of its form: `tower`, `merged`, `adapter` (merged in memory) or `stage1`."""
        return self.checkpoint.kind

    @property
    def folder(self) -> Path:
        """Where it lies: of an `output_dir` without a merged model, its `adapter`."""
        return self.checkpoint.folder

    @property
    def tower(self) -> ToVEVisionModel | None:
        """The ToVE tower in it; None for a model with a plain CLIP."""
        return find_tower(self.model)

    @property
    def llava(self) -> LlavaForConditionalGeneration:
        """`model` under its own type, where there is a language model."""
        return as_llava(self.model)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return cast(PreTrainedModel, self.model).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the model's weights."""
        return cast(PreTrainedModel, self.model).dtype

    @property
    def vision_tower(self) -> nn.Module:
        """What sees: the ToVE tower, or what stands in its place."""
        return self.tower or vision_part(self.model)

    def require_tower(self) -> ToVEVisionModel:
        """The ToVE tower in it.

        Raises:
            UserError: The model has a plain CLIP.
        """
        tower = self.tower
        if tower is None:
            raise UserError(f"`{self.folder}` has a plain CLIP, no ToVE tower; `tove graft` gives it one")
        return tower

    @property
    def conversation(self) -> str:
        """How it is asked: `question` (nothing around it) or the name of a conversation template."""
        return "question" if self.checkpoint.is_bare else conversation_of(self.processor)

    @property
    def image_processor(self) -> Any:
        """Of the tower or of the plain CLIP."""
        return getattr(self.processor, "image_processor", self.processor)


@dataclass(frozen=True)
class Checkpoint(ABC):
    """A folder that this package wrote, in one of its forms; nothing of it is loaded."""

    folder: Path
    """Where it really lies: of an `output_dir` without a merged model, its `adapter`."""

    kind: ClassVar[str]
    """Name of the form, in reports."""
    has_language_model: ClassVar[bool] = True
    is_bare: ClassVar[bool] = False
    """Whether its model is asked the question itself, without a conversation around it."""
    holds_tower: ClassVar[bool] = False
    """Whether its config.json says all of its tower, so that no YAML or other folder is read for it."""

    @classmethod
    @abstractmethod
    def find(cls, folder: Path) -> Self | None:
        """The checkpoint of this form in a folder, or None.

        Args:
            folder: Exists.

        Raises:
            UserError: It is of this form and of another model.
        """

    @abstractmethod
    def load(self) -> LoadedCheckpoint:
        """The model on the CPU, in eval mode.

        Raises:
            UserError: The folder does not say what it belongs to.
            WeightsError: Weights are missing, truncated, or do not fit.
        """

    def _loaded(self, model: nn.Module, processor: Any, image_aspect_ratio: str = "pad") -> LoadedCheckpoint:
        """The result of `load`, its image processor as in training; `image_aspect_ratio` where nothing says it."""
        pixels = pixel_settings(self.folder, image_aspect_ratio)
        where = f"file `{self.folder / MODEL_FILE}`"
        processor.image_processor = as_trained(processor.image_processor, **pixels, where=where)
        loaded = LoadedCheckpoint(checkpoint=self, model=model, processor=processor, **pixels)
        check_version(self.folder)
        if loaded.tower is not None:
            log_weights(loaded.tower, str(self.folder))
        return loaded

    @abstractmethod
    def experts(self) -> Attachment:
        """Which experts it has and which are detached, read off its files.

        Raises:
            UserError: The model has a plain CLIP, or the folder does not say what it belongs to.
        """

    @property
    @abstractmethod
    def holds_experts(self) -> bool:
        """Whether the experts' weights are in its own files; else it refers to them."""

    @abstractmethod
    def weight_files(self) -> list[Path]:
        """Files with its weights.

        Raises:
            WeightsError: There are none, or a shard is missing.
        """

    @property
    def frozen_llm(self) -> str | None:
        """Where its language model lies as it was before any training; None where it was trained or there is none."""
        return None

    def files(self) -> list[Path]:
        """All the files that make up the model.

        Raises:
            WeightsError: As for `weight_files`.
        """
        about = {path for path in self.folder.iterdir() if path.is_file() and _is_about(path.name)}
        index = index_of(self.folder)
        return sorted({*about, *self.weight_files(), *([index] if index else [])})

    def tensors(self) -> dict[str, TensorAt]:
        """Every tensor of its own weights, by name.

        Raises:
            WeightsError: The weights are missing, truncated or not safetensors.
        """
        return {name: tensor for file in self.weight_files() for name, tensor in read_header(file).tensors.items()}

    def with_experts(
        self,
        target: Path,
        detached: Sequence[str],
        extra: Mapping[str, TensorAt] | None = None,
        layout: Path | None = None,
        mean_terms: Mapping[str, TensorAt] | None = None,
    ) -> list[str]:
        """Write the model with other experts attached: only their tensors come or go.

        Nothing is loaded and nothing serialised anew; every other tensor keeps its bytes.

        Args:
            target: Exists, empty.
            detached: All the experts that are detached in what is written, in the order of the gate's columns.
            extra: Tensors of experts that this checkpoint does not hold.
            layout: Folder whose files say which tensor goes where; none takes this one.
            mean_terms: Detached expert -> what stands in its place from now on; what stood there already stays.

        Returns:
            The kinds written: its own, and `adapter` where one lies in a merged folder.

        Raises:
            UserError: An expert's weights are neither here nor in `extra`.
            WeightsError: The weights cannot be read.
            OSError: The disk is full or refuses.
        """
        self._copy_about(target, apart_from=(CONFIG, MODEL_FILE, INDEX))
        further = {**(extra or {}), **self._named(mean_terms or {})}
        return self._write_model(target, list(detached), further, layout or self.folder)

    def without_experts(self, target: Path, detached: Sequence[str]) -> list[str]:
        """Write the model as if it had never had the detached experts: what was trained for them is left out too.

        Args:
            target: Exists, empty.
            detached: All the experts that are detached in what is written.

        Returns:
            The kinds written: its own. An adapter in a merged folder belongs to the whole tower and stays behind.

        Raises:
            UserError: This checkpoint refers to its tower, or see `forget.check_forgettable`.
            WeightsError: The weights cannot be read.
        """
        if not self.holds_tower:
            raise UserError(
                f"`{self.folder}` ({self.kind}) refers to its tower, which is not changed; a saved tower or a merged "
                "model can forget experts"
            )
        forget.check_forgettable(load_json(self.folder / CONFIG), self.folder, detached)
        edits: dict[str, Callable[[dict[str, Any]], None]] = {
            CONFIG: lambda content: forget.drop_experts(content, self.folder, detached),
            MODEL_FILE: lambda content: forget.drop_settings(content, detached),
            SOURCES_FILE: lambda content: forget.drop_sources(content, detached),
        }
        self._copy_about(target, apart_from=(*edits, INDEX))
        for name, edit in edits.items():
            if (self.folder / name).is_file():
                edit_json(self.folder / name, target, edit)
        names = self.experts().expert_names
        with forget.remaining_tensors(self.tensors(), names, detached, target) as tensors:
            arrange(self.folder, target, tensors)
        return [self.kind]

    def _copy_about(self, target: Path, apart_from: Sequence[str]) -> None:
        for path in self.folder.iterdir():
            if path.is_file() and _is_about(path.name) and path.name not in apart_from:
                shutil.copyfile(path, target / path.name)

    @abstractmethod
    def _write_model(self, target: Path, detached: list[str], extra: Mapping[str, TensorAt], layout: Path) -> list[str]:
        """Weights, CONFIG and MODEL_FILE, for `with_experts`; gives the kinds written. Mean terms are in `extra`."""

    def _named(self, mean_terms: Mapping[str, TensorAt]) -> dict[str, TensorAt]:
        prefix = tower_prefix(self.tensors()) if mean_terms else None
        return {f"{prefix}{MEAN_TERMS}{name}": at for name, at in mean_terms.items()}


def save_with_experts(loaded: LoadedCheckpoint, output: str | Path) -> list[str]:
    """Write a checkpoint with the experts that its tower has attached at this moment, and its mean terms.

    Args:
        loaded: From `open_checkpoint`; what is written comes from its folder, not from memory.
        output: New folder.

    Returns:
        As `Checkpoint.with_experts`.

    Raises:
        UserError: `output` exists, is the input or lies in it; the model has no ToVE tower; an expert is attached in
            memory whose weights the folder does not hold.
    """
    if loaded.tower is None:
        raise no_experts(loaded.folder)
    tower = loaded.tower
    fusion: Any = tower.tove_fusion  # a concatenating one has no terms, and its config names none
    means = {name: fusion.mean_terms[name] for name in tower.config.mean_terms}
    with new_folder(output, loaded.folder) as writing, mean_terms_file(means, tower, writing) as files:
        return loaded.checkpoint.with_experts(writing, tower.config.detached, mean_terms=files)


def _is_about(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in _ABOUT)
