"""The tower as LAVIS's `visual_encoder`: an image in, one tensor of tokens out.

Shapes: B images, N tokens, D width.

See docs/hosts.md, "LAVIS".
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...config import UserError
from ...storage.tensors import DTYPES
from ...tower.build import build_tower
from ...tower.fusion import ToVEFusion
from ...tower.modeling import ToVEVisionModel
from ..names import tower_path
from .checks import check_keys

logger = logging.getLogger(__name__)

BALANCE_LOSS_WEIGHT = 0.01
"""Of a LAVIS model that does not say another, as in this package's own training."""
_FROZEN_DTYPES = {"fp32": DTYPES["float32"], "fp16": DTYPES["float16"], "bf16": DTYPES["bfloat16"]}


class ToVEVisualEncoder(nn.Module):
    """What a BLIP-2 model calls: (B, 3, S, S) to (B, N, D), with no class token, which BLIP-2 never asks for.

    CLIP and the experts are frozen, `tove_fusion` is trained, whatever `freeze_vit` says: LAVIS leaves what is frozen
    out of its checkpoints, and a gate that is neither trained nor saved would be of no use.

    Args:
        tower: On the CPU, in float32.
        precision: LAVIS's `vit_precision` (fp16, fp32, bf16), of the frozen parts. Without a CUDA device all stays in
            float32, as LAVIS computes there.
        source: Where the tower came from; a saved tower brings a trained `tove_fusion`, a YAML does not.

    Raises:
        UserError: Unknown precision.
    """

    def __init__(self, tower: ToVEVisionModel, precision: str = "fp32", source: str | Path = "?"):
        super().__init__()
        if precision not in _FROZEN_DTYPES:
            raise UserError(f"`vit_precision` is `{precision}`; valid: {', '.join(_FROZEN_DTYPES)}")
        self.tower = tower
        self.num_features = tower.config.hidden_size
        self.source = Path(source)
        self.balance_loss_weight = BALANCE_LOSS_WEIGHT
        if torch.cuda.is_available():
            frozen: tuple[nn.Module, nn.Module] = (tower.clip, tower.experts)
            for part in frozen:
                part.to(_FROZEN_DTYPES[precision])
        train_fusion(self.tower)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Tokens (B, N, D) in the image's dtype, so that the Q-Former takes them with and without autocast."""
        return self.tower(image).last_hidden_state.to(image.dtype)

    def get_num_layer(self, var_name: str = "") -> int:
        """For LAVIS's layer-wise learning rates (main branch): no layers, and all that is trained is above them."""
        return 1 if var_name else 0

    def __setattr__(self, name: str, value: Any) -> None:
        """`freeze_vit: True` ends with `visual_encoder.train = disabled_train`, after it froze every parameter."""
        if name == "train":
            logger.info("freeze_vit: CLIP and the experts are frozen; tove_fusion (gate and transfer) is trained")
            train_fusion(self.tower)
            return
        super().__setattr__(name, value)

    def _load_from_state_dict(self, state_dict: dict[str, torch.Tensor], prefix: str, *args: Any) -> None:
        """Called by every `load_state_dict` above it, strict or not, before the tower itself is loaded."""
        expected = self.state_dict(prefix=prefix, keep_vars=True)
        check_keys(state_dict, expected, prefix, trained_source=self.source.is_dir(), source=self.source)
        for key, tensor in expected.items():
            state_dict.setdefault(key, tensor.data)  # frozen parts, which LAVIS's checkpoints leave out, stay
        super()._load_from_state_dict(state_dict, prefix, *args)


def train_fusion(tower: ToVEVisionModel) -> None:
    """Let learn what takes part and nothing else: LAVIS's DistributedDataParallel stops at a parameter without a
    gradient.
    """
    attached = tower.attached_names
    tower.requires_grad_(bool(attached))
    if not isinstance(tower.tove_fusion, ToVEFusion):
        return
    for name, transfer in tower.tove_fusion.transfers.items():
        transfer.requires_grad_(name in attached)


def build_encoder(name: str, img_size: int, drop_path_rate: float, precision: str) -> ToVEVisualEncoder:
    """The encoder that `vit_model: name` stands for.

    Args:
        name: `tove` or `tove:PATH`.
        img_size: LAVIS's `image_size`.
        drop_path_rate: LAVIS's `drop_path_rate`; a frozen CLIP drops no path.
        precision: LAVIS's `vit_precision`.

    Raises:
        UserError: The tower is not there, does not fit, or takes images of another size.
    """
    path = tower_path(name, "vit_model")
    tower = build_tower(path)
    if img_size != tower.config.image_size:
        size = tower.config.image_size
        raise UserError(
            f"`model.image_size` is {img_size} and the tower {path} takes {size}: write `image_size: {size}` under "
            "`model` (LAVIS's default is 224) and under `vis_processor`, if you state it there"
        )
    if drop_path_rate:
        raise UserError(f"`model.drop_path_rate` is {drop_path_rate}; the tower's CLIP is frozen, so write 0")
    return ToVEVisualEncoder(tower, precision, source=path)
