"""A checkpoint written anew with other experts attached: tensors that come or go, and what its JSON files say."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import UserError
from ..config.model import MODEL_FILE
from ..storage import save_tensors
from .experts import CONFIG, GATE, experts_by_tensor, mean_terms_by_tensor, set_detached, tower_prefix
from .rewrite import arrange, edit_json
from .tensor_files import TensorAt, read_header, write_file

if TYPE_CHECKING:
    import torch

    from ..tower.modeling import ToVEVisionModel
    from .base import Checkpoint


def write_holding(
    checkpoint: "Checkpoint", target: Path, detached: list[str], extra: Mapping[str, TensorAt], layout: Path
) -> list[str]:
    """Write a checkpoint that has its tower in its own files; returns the kinds written.

    Args:
        checkpoint: It.
        target: Exists.
        detached: All that are detached in what is written, in the order of the gate's columns.
        extra: Tensors that it does not hold, under their names in it: experts, mean terms.
        layout: Folder whose files say which tensor goes where.

    Raises:
        UserError: An expert's weights are neither there nor in `extra`.
    """
    attached = [name for name in checkpoint.experts().expert_names if name not in detached]
    tensors = {**checkpoint.tensors(), **extra}
    if checkpoint.holds_experts:
        owners = experts_by_tensor(tensors)
        absent = [name for name in attached if name not in owners.values()]
        if absent:
            raise UserError(
                f"`{checkpoint.folder}` does not hold the weights of `{absent[0]}`; bring it back with `tove attach`"
            )
        tensors = {name: at for name, at in tensors.items() if name not in owners or owners[name] in attached}
    tensors, mean_terms = _with_mean_terms(tensors, detached)
    arrange(layout, target, tensors, beside=f"{tower_prefix(tensors)}{GATE}")
    if (checkpoint.folder / MODEL_FILE).is_file():
        shutil.copyfile(checkpoint.folder / MODEL_FILE, target / MODEL_FILE)
    _edit_config(checkpoint, target, detached, mean_terms)
    return [checkpoint.kind]


def write_referring(
    checkpoint: "Checkpoint", target: Path, detached: list[str], extra: Mapping[str, TensorAt]
) -> list[str]:
    """The same of a checkpoint that names its tower in MODEL_FILE and holds no expert.

    Args:
        checkpoint: It.
        target: Exists.
        detached: As for `write_holding`.
        extra: Mean terms.
    """
    mean_terms: list[str] = []
    for file in checkpoint.weight_files():
        header = read_header(file)
        holds_gate = any(name.endswith(GATE) for name in header.tensors)
        tensors, found = _with_mean_terms({**header.tensors, **(extra if holds_gate else {})}, detached)
        mean_terms += found
        if tensors == header.tensors:
            shutil.copyfile(file, target / file.name)
        else:
            write_file(target / file.name, tensors, header.metadata)
    edit_json(checkpoint.folder / MODEL_FILE, target, lambda info: info["model"].update(detached=detached))
    if (checkpoint.folder / CONFIG).is_file():
        _edit_config(checkpoint, target, detached, mean_terms)
    return [checkpoint.kind]


@contextlib.contextmanager
def mean_terms_file(
    means: Mapping[str, "torch.Tensor"], tower: "ToVEVisionModel", working: Path
) -> Iterator[dict[str, TensorAt]]:
    """Where the bytes of mean terms lie, for a checkpoint that is written anew.

    Args:
        means: Expert -> (D,).
        tower: Whose `tove_fusion` they go to; in its dtype.
        working: Folder for a file that is gone at the end.
    """
    file = working / ".mean_terms"
    if not means:
        yield {}
        return
    try:
        dtype = next(tower.tove_fusion.parameters()).dtype
        save_tensors(file, {name: mean_D.to(dtype) for name, mean_D in means.items()})
        yield read_header(file).tensors
    finally:
        file.unlink(missing_ok=True)


def _edit_config(checkpoint: "Checkpoint", target: Path, detached: list[str], mean_terms: list[str]) -> None:
    def edit(config: dict[str, Any]) -> None:
        set_detached(config, checkpoint.folder, detached, mean_terms)

    edit_json(checkpoint.folder / CONFIG, target, edit)


def _with_mean_terms(tensors: Mapping[str, TensorAt], detached: Sequence[str]) -> tuple[dict[str, TensorAt], list[str]]:
    """The tensors without the mean terms of experts that are attached, and the experts whose stay."""
    owners = mean_terms_by_tensor(tensors)
    gone = {name for name, expert in owners.items() if expert not in detached}
    return (
        {name: at for name, at in tensors.items() if name not in gone},
        [expert for name, expert in owners.items() if name not in gone],
    )
