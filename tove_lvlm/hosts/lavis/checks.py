"""Look at a checkpoint's tensors before LAVIS loads them: it loads with strict=False and says nothing.

See docs/hosts.md, "LAVIS".
"""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...storage import WeightsError
from ...tower.checks import transfer_hint

logger = logging.getLogger(__name__)

_FUSION = "tower.tove_fusion."
_SAMPLE = 3  # keys named in a message


def check_keys(
    loaded: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], prefix: str, trained_source: bool, source: Path
) -> None:
    """Refuse a checkpoint that does not fit the tower.

    Args:
        loaded: The checkpoint's tensors.
        expected: Those of the tower under the same names.
        prefix: What the names of the tower's tensors begin with.
        trained_source: Whether the tower's own source brings a trained `tove_fusion`.
        source: That source, for messages.

    Raises:
        WeightsError: Keys are missing or left over, of another shape, or of other frozen weights.
    """
    keys = [key for key in loaded if key.startswith(prefix)]
    unexpected = [key for key in keys if key not in expected]
    if unexpected:
        raise WeightsError(
            f"{len(unexpected)} keys are not of this tower ({_few(unexpected)}): the checkpoint was written with "
            f"another vision encoder or other experts than {source}{transfer_hint(expected, loaded)}"
        )
    if not keys and trained_source:
        logger.info("the checkpoint holds nothing of the tower: tove_fusion stays as in the saved tower %s", source)
        return
    missing = [
        key
        for key in expected
        if key.startswith(prefix + _FUSION) and key not in loaded and expected[key].requires_grad
    ]
    if missing:
        raise WeightsError(
            f"{len(missing)} keys of tove_fusion are missing ({_few(missing)}): its gate would not be the trained one. "
            "To start from this checkpoint with the tower as it is, save the tower and name its folder in `vit_model`"
        )
    _check_shapes(loaded, expected, keys)
    _check_frozen(loaded, expected, [key for key in keys if not key.startswith(prefix + _FUSION)], str(source))


def check_base_keys(
    loaded: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tower: str, trainable: str
) -> None:
    """Refuse a checkpoint that does not fit the base model.

    Args:
        loaded: The checkpoint's tensors; frozen ones may be left out.
        expected: The model's, with `requires_grad` as `trainable` sets it.
        tower: What the names of the tower's tensors begin with.
        trainable: Name of what learns, for the message.

    Raises:
        WeightsError: Keys are missing or left over, of another shape, or of other frozen weights.
    """
    unexpected = [key for key in loaded if key not in expected]
    if unexpected:
        raise WeightsError(
            f"{len(unexpected)} keys are not of this model ({_few(unexpected)}): the checkpoint was written with "
            f"another decoder, tower or architecture{transfer_hint(expected, loaded)}"
        )
    missing = [key for key, tensor in expected.items() if tensor.requires_grad and key not in loaded]
    if missing:
        raise WeightsError(
            f"{len(missing)} keys that `trainable: {trainable}` trains are missing ({_few(missing)}): write what the "
            "checkpoint's own run had in `model.trainable`"
        )
    _check_shapes(loaded, expected, list(loaded))
    frozen = [key for key in loaded if key.startswith(tower) and not key.startswith(f"{tower}tove_fusion.")]
    _check_frozen(loaded, expected, frozen, "this model's tower")


def naming_file(load: Callable[..., Any], is_ours: Callable[[Any], bool]) -> Callable[..., Any]:
    """A method of LAVIS's that loads a checkpoint, with the file in what is said of it.

    Args:
        load: Takes the object and the file's name.
        is_ours: Whether what else goes wrong with that object's model is to be named too.
    """

    @functools.wraps(load)
    def named(self, url_or_filename, *args, **kwargs):
        try:
            return load(self, url_or_filename, *args, **kwargs)
        except WeightsError as error:
            raise WeightsError(f"checkpoint `{url_or_filename}`: {error}") from error
        except RuntimeError as error:
            if not is_ours(self):
                raise
            raise WeightsError(f"checkpoint `{url_or_filename}` does not fit: {_one_line(error)}") from error

    return named


def _check_shapes(loaded: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], keys: list[str]) -> None:
    misfits = [
        f"{key} is {tuple(loaded[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in keys
        if loaded[key].shape != expected[key].shape
    ]
    if misfits:
        raise WeightsError(f"{len(misfits)} tensors have another shape ({_few(misfits)})")


def _check_frozen(
    loaded: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], keys: list[str], source: str
) -> None:
    mismatched = [key for key in keys if not _nearly_equal(loaded[key].cpu(), expected[key].data.cpu())]
    if mismatched:
        raise WeightsError(
            f"{len(mismatched)} frozen tensors have other values than those of {source} ({_few(mismatched)}): the "
            "checkpoint was trained with another CLIP or other experts"
        )


def _nearly_equal(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Up to what float16 loses."""
    return torch.allclose(left.float(), right.float(), rtol=1e-2, atol=1e-3)


def _few(names: list[str]) -> str:
    return ", ".join(names[:_SAMPLE]) + (", ..." if len(names) > _SAMPLE else "")


def _one_line(error: Exception, limit: int = 400) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
