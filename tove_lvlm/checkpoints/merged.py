"""An ordinary LlavaForConditionalGeneration folder: stage 2's merged model, a grafted one, or anybody's."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import nn
from transformers import AutoConfig

from ..config import UserError
from ..config.trained import read_model_info
from ..lvlm.build import without_zero3_init
from ..lvlm.lora import collect_merged
from ..lvlm.parts import base_model
from ..storage import load_json, new_folder
from ..storage.pretrained import read_pretrained, save_stock
from .adapter import AdapterCheckpoint
from .base import LoadedCheckpoint
from .experts import CONFIG, mean_terms_by_tensor
from .model_info import read_model_block, save_model_info
from .tensor_files import TensorAt
from .whole import WholeCheckpoint, load_whole


@dataclass(frozen=True)
class MergedCheckpoint(WholeCheckpoint):
    """A whole LLaVA model; stage 2's adapter may lie in it too."""

    kind: ClassVar[str] = "merged"

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """See `Checkpoint.find`."""
        if not any(folder.glob("model*.safetensors")):
            return None
        kind = load_json(folder / CONFIG).get("model_type") if (folder / CONFIG).is_file() else None
        if kind != "llava":
            raise UserError(f"`{folder}` holds a model of type `{kind}`; expected a LLaVA model (`llava`)")
        return cls(folder)

    def load(self) -> LoadedCheckpoint:
        """See `Checkpoint.load`."""
        model, processor = load_whole(self.folder)
        return self._loaded(model, processor)

    @property
    def adapter(self) -> AdapterCheckpoint | None:
        """Stage 2's adapter in it."""
        found = AdapterCheckpoint(self.folder / AdapterCheckpoint.kind)
        return found if found.exists else None

    def files(self) -> list[Path]:
        """See `Checkpoint.files`; those of the adapter in it too."""
        return sorted([*super().files(), *(self.adapter.files() if self.adapter else [])])

    def _write_model(self, target: Path, detached: list[str], extra: Mapping[str, TensorAt], layout: Path) -> list[str]:
        written = super()._write_model(target, detached, extra, layout)
        if self.adapter is None:
            return written
        (target / self.adapter.kind).mkdir()
        mean_terms = {expert: extra[name] for name, expert in mean_terms_by_tensor(extra).items()}
        folder = target / self.adapter.kind
        return [*written, *self.adapter.with_experts(folder, detached, mean_terms=mean_terms)]


def export_merged(checkpoint: str | Path, output: str | Path) -> Path:
    """Merge an adapter into its model and write that whole.

    The sum is taken in float32 and rounded once, to the dtype that the language model has on disk.

    Args:
        checkpoint: An adapter, or stage 2's `output_dir` with one.
        output: New folder.

    Returns:
        `output`.

    Raises:
        UserError: There is no adapter, or what it belongs to is gone.
        WeightsError: Weights are missing or do not fit.
    """
    adapter = AdapterCheckpoint.find(Path(checkpoint))
    if adapter is None:
        raise UserError(f"`{checkpoint}` holds no adapter; expected stage 2's `output_dir` or its `adapter`")
    with new_folder(output, checkpoint) as writing:
        loaded = adapter.load()
        dtype = read_pretrained(AutoConfig, read_model_block(adapter.folder).llm).dtype or torch.float32
        loaded.model.to(dtype)
        save_merged(writing, collect_merged(loaded.model), loaded.model, loaded.processor)
        save_model_info(writing, read_model_info(adapter.folder))
    return Path(output)


def save_merged(folder: str | Path, tensors: dict[str, torch.Tensor], model: nn.Module, processor: Any) -> None:
    """Write an ordinary LlavaForConditionalGeneration folder. Rank 0 only.

    Args:
        folder: Made when absent.
        tensors: From `collect_merged`.
        model: For its configuration.
        processor: From `build_lvlm`.
    """
    base = base_model(model)
    dtype = next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())
    with without_zero3_init(), torch.device("meta"):
        shell = type(base)(copy.deepcopy(base.config))
        cast(nn.Module, shell).to(dtype)  # transformers' own `to` loses `self` for type checkers
    if hasattr(shell.config, "use_cache"):  # Trainer turned it off
        shell.config.use_cache = True
    shell.generation_config = base.generation_config
    processor.save_pretrained(folder)
    save_stock(shell, folder, tensors)
