"""Find out what a folder holds, and load it."""

from collections.abc import Sequence
from pathlib import Path

from ..config import UserError
from ..tower.build import build_tower
from ..tower.modeling import ToVEVisionModel
from .adapter import AdapterCheckpoint
from .base import Checkpoint, LoadedCheckpoint
from .encoder_decoder import EncoderDecoderCheckpoint
from .merged import MergedCheckpoint
from .stage1 import Stage1Checkpoint
from .tower import TowerCheckpoint

MODELS: tuple[type[Checkpoint], ...] = (EncoderDecoderCheckpoint, MergedCheckpoint, AdapterCheckpoint)
"""Forms of a model that can answer."""
FORMS: tuple[type[Checkpoint], ...] = (TowerCheckpoint, Stage1Checkpoint, *MODELS)
"""All, in the order in which they are looked for."""


def detect(folder: str | Path, forms: Sequence[type[Checkpoint]] = FORMS) -> Checkpoint:
    """What a folder holds; nothing is loaded.

    Args:
        folder: A saved tower; stage 1's or stage 2's `output_dir`; an `adapter`; a whole LLaVA model;
            a base model.
        forms: What may be there.

    Raises:
        UserError: None of these; the message says what was looked for.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"model folder `{folder}` does not exist")
    for form in forms:
        if (checkpoint := form.find(folder)) is not None:
            return checkpoint
    raise UserError(
        f"`{folder}` holds neither a merged model (model*.safetensors) nor an adapter (adapter_config.json); give "
        "the output_dir of a finished scripts/finetune_vicuna.py or scripts/pretrain_base.py"
    )


def open_checkpoint(folder: str | Path) -> LoadedCheckpoint:
    """Load anything that this package's scripts wrote.

    Args:
        folder: As for `detect`.

    Raises:
        UserError: As for `detect`.
        WeightsError: Weights are missing, truncated, or do not fit.
    """
    return detect(folder).load()


def load_model(folder: str | Path) -> LoadedCheckpoint:
    """Load a model that can answer: a merged folder or an adapter.

    Raises:
        UserError: The folder holds no such model.
        WeightsError: As for `open_checkpoint`.
    """
    return detect(folder, MODELS).load()


def open_tower(source: str | Path) -> ToVEVisionModel:
    """The ToVE tower of a YAML, a saved tower, or anything else that `open_checkpoint` takes.

    Raises:
        UserError: There is none in it.
    """
    return open_checkpoint(source).require_tower() if Path(source).is_dir() else build_tower(source)
