"""Look at a checkpoint's tensors before LAVIS loads them: it loads with strict=False and says nothing.

See docs/hosts.md, "LAVIS".
"""

import logging
from pathlib import Path

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
    misfits = [
        f"{key} is {tuple(loaded[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in keys
        if loaded[key].shape != expected[key].shape
    ]
    if misfits:
        raise WeightsError(f"{len(misfits)} tensors of the tower have another shape ({_few(misfits)})")
    mismatched = [
        key
        for key in keys
        if not key.startswith(prefix + _FUSION) and not _nearly_equal(loaded[key].cpu(), expected[key].data.cpu())
    ]
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
