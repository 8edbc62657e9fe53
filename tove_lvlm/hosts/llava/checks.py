"""Look at a checkpoint's files before LLaVA reads them.

LLaVA loads with `strict=False`, so that a projector that is missing or belongs to another tower would silently stay
random. Keys and shapes are compared here, before the language model is read.

See docs/hosts.md, "Projector in LLaVA".
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ... import storage
from ...tower.configuration import ToVEVisionConfig
from ...tower.make import make_fusion
from ..names import is_tove
from .projector import expected_projector, raise_misfits
from .source import loading_from

_PART = "mm_projector."


@contextlib.contextmanager
def checked_checkpoint(
    projector_builder: Callable[..., nn.Module], model_path: str, model_base: str | None, model_name: str
) -> Iterator[None]:
    """For the time of LLaVA's `load_pretrained_model`, after its checkpoint has been found in order.

    Args:
        projector_builder: LLaVA's own.
        model_path: As for the loader.
        model_base: The same.
        model_name: The same; LLaVA finds the layout by it.

    Raises:
        WeightsError: The file that should hold the projector is missing, or lacks keys, or has others; names file and
            keys.
        UserError: The configuration names no tower that is here.
    """
    folder = Path(model_path)
    fields = storage.load_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if not is_tove(fields.get("mm_vision_tower")) or "llava" not in model_name.lower():
        yield
        return
    with loading_from(folder.resolve()):
        expected = expected_projector(projector_builder, SimpleNamespace(**fields))
        file = folder
        if model_base is not None:
            file = folder / ("non_lora_trainables.bin" if "lora" in model_name.lower() else "mm_projector.bin")
        raise_misfits(expected, _projector_part(file), str(file))
        yield


def check_adapter(file: str | None, tower: ToVEVisionConfig) -> None:
    """Look at what `--pretrain_mm_mlp_adapter` names before anything is trained.

    Args:
        file: LLaVA's `mm_projector.bin`, or None.
        tower: The tower that it must belong to.

    Raises:
        WeightsError: It cannot be read, or its `tove_fusion` or its first layer do not fit the tower.
    """
    if file is None:
        return
    saved = _projector_part(Path(file))
    with torch.device("meta"):
        fusion = make_fusion(tower).state_dict()
    expected = {f"tove_fusion.{name}": tensor for name, tensor in fusion.items()}
    expected |= {name: tensor for name, tensor in saved.items() if not name.startswith("tove_fusion.")}
    first = saved.get("0.weight")
    if first is not None:  # the width of the language model is not known here, that of CLIP is
        expected["0.weight"] = torch.empty(len(first), tower.hidden_size, device="meta")
    raise_misfits(expected, saved, file)


def _projector_part(path: Path) -> Mapping[str, torch.Tensor]:
    """Tensors of the projector in a file or folder, by their names in it; of safetensors only shapes are read."""
    part: dict[str, torch.Tensor] = {}
    for file in storage.weight_files(path):
        shapes = _shapes(file) if file.suffix == ".safetensors" else storage.load_tensors(file)
        part |= {key.split(_PART, 1)[1]: tensor for key, tensor in shapes.items() if _PART in key}
    return part


def _shapes(file: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(file, framework="pt") as tensors:
            sizes = {key: tensors.get_slice(key).get_shape() for key in tensors.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise storage.WeightsError(f"weights `{file}` are truncated or not safetensors: {error}") from error
    return {key: torch.empty(size, device="meta") for key, size in sizes.items()}
