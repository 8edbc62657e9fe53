"""Stage 2's LoRA as a peft folder, with projector and `tove_fusion` in a file beside it.

So stock peft loads the LoRA, and it has no `modules_to_save`, which vLLM refuses. Adapters of before have projector and
`tove_fusion` as these.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import nn

from ..config import ConfigError
from ..config.model import MODEL_FILE
from ..config.sources import local_path
from ..config.trained import read_model_info
from ..registry import require
from ..storage import WeightsError, check_numbers, load_json, load_tensors, misfits, save_tensors
from ..storage.pretrained import read_pretrained, unreadable
from .base import Checkpoint, LoadedCheckpoint
from .experts import Attachment, experts_of_block
from .from_config import build_lvlm
from .model_info import check_tower, own_template, read_trained_block, save_model_info
from .projector import assign_projector
from .tensor_files import TensorAt
from .write_experts import write_referring

if TYPE_CHECKING:
    from peft import PeftModel

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PARTS = "non_lora.safetensors"
"""Projector and `tove_fusion`, named as in stage 1's file."""
_INNER = "base_model.model.model."
"""What peft puts before the names of LlavaModel's parts."""


@dataclass(frozen=True)
class AdapterCheckpoint(Checkpoint):
    """A LoRA; the rest of its model lies where its MODEL_FILE says."""

    kind: ClassVar[str] = "adapter"

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """See `Checkpoint.find`; of an `output_dir` it is the `adapter` in it."""
        candidates = (cls(folder), cls(folder / cls.kind))
        return next((candidate for candidate in candidates if candidate.exists), None)

    @property
    def exists(self) -> bool:
        """Whether peft's configuration is there."""
        return (self.folder / _CONFIG).is_file()

    def load(self) -> LoadedCheckpoint:
        """See `Checkpoint.load`; the LoRA is merged in memory."""
        # The adapter brings the projector and tove_fusion itself: stage 1's folder may be gone.
        block = read_trained_block(self.folder, pretrain_mm_mlp_adapter=None, chat_template=own_template(self.folder))
        model, processor = build_lvlm(block)
        model_info = read_model_info(self.folder)
        check_tower(model, model_info, self.folder / MODEL_FILE)
        wrapped = load_adapter(model, self.folder)
        for file in self.weight_files()[1:]:
            tensors = load_tensors(file)
            check_numbers(tensors, str(file))
            try:
                assign_projector(wrapped, tensors, file)
            except ConfigError as error:
                raise WeightsError(str(error)) from error
        with _told(self.folder):
            merged = wrapped.merge_and_unload().eval()
        check_numbers(dict(merged.named_parameters()), f"{self.folder / _CONFIG}")  # alpha may be NaN too
        return self._loaded(merged, processor)

    def experts(self) -> Attachment:
        """See `Checkpoint.experts`."""
        return experts_of_block(self.folder)

    @property
    def holds_experts(self) -> bool:
        """It never does."""
        return False

    def weight_files(self) -> list[Path]:
        """See `Checkpoint.weight_files`."""
        lora, parts = self.folder / _WEIGHTS, self.folder / _PARTS
        if parts.is_file():
            return [lora, parts]
        if load_json(self.folder / _CONFIG).get("modules_to_save"):  # of before there was the file
            return [lora]
        raise WeightsError(f"`{self.folder}` lacks {_PARTS}, its projector and `tove_fusion`; copy the whole folder")

    def _write_model(self, target: Path, detached: list[str], extra: Mapping[str, TensorAt], layout: Path) -> list[str]:
        return write_referring(self, target, detached, extra)


def load_adapter(model: nn.Module, folder: Path) -> "PeftModel":
    """A model with an adapter on it, all of its tensors and no others: peft only warns where some are missing, and is
    silent about names that it does not know.

    Args:
        model: What the adapter's MODEL_FILE names.
        folder: The adapter's.

    Raises:
        WeightsError: Its tensors are not exactly those of its configuration.
    """
    peft = require("peft", extra="train")
    config = read_pretrained(peft.PeftConfig, str(folder))
    config.base_model_name_or_path = None  # `model` was built from several folders and has no name
    with _told(folder):
        wrapped: PeftModel = peft.get_peft_model(model, config)
    file = folder / _WEIGHTS
    tensors = load_tensors(file)
    problems = misfits(peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False), tensors)
    if problems:
        raise WeightsError(
            f"{file} does not fit its {_CONFIG} and the model that its {MODEL_FILE} names: {'; '.join(problems)}"
        )
    check_numbers(tensors, str(file))
    peft.set_peft_model_state_dict(wrapped, tensors)
    return wrapped


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What peft does with a configuration; of a broken one it raises whatever that leads to."""
    try:
        yield
    except Exception as error:
        raise unreadable(error, f"{folder / _CONFIG}", "LoRA") from error


def save_adapter(
    folder: str | Path, peft_model: "PeftModel", tensors: dict[str, torch.Tensor], model_info: dict[str, Any]
) -> None:
    """Write peft's adapter folder, and projector and `tove_fusion` in it. Rank 0 only.

    Args:
        folder: Made when absent.
        peft_model: From `add_lora`.
        tensors: From `collect_trainable(peft_model)`.
        model_info: What goes into MODEL_FILE; its `model` is the `model` block, from which loading rebuilds the base.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads(json.dumps(peft_model.peft_config["default"].to_dict(), default=_jsonable))
    config |= {
        "inference_mode": True,
        "base_model_name_or_path": str(local_path(model_info["model"]["llm"])),
        "modules_to_save": None,
    }
    (folder / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    save_model_info(folder, model_info)
    lora = {name.replace(".default", ""): tensor for name, tensor in tensors.items() if ".lora_" in name}
    parts = {name.removeprefix(_INNER): tensor for name, tensor in tensors.items() if ".lora_" not in name}
    save_tensors(folder / _PARTS, parts, metadata={"format": "pt"})
    save_tensors(folder / _WEIGHTS, lora, metadata={"format": "pt"})


def _jsonable(value: object) -> object:
    return sorted(value) if isinstance(value, set) else str(value)
