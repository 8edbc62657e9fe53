"""The tower as LLaVA calls it: the surface of its CLIPVisionTower, frozen features packed.

Shapes: B images, N tokens, C packed width, H W pixels.

See docs/hosts.md, "Projector in LLaVA".
"""

from typing import Any

import torch
from torch import nn

from ...config import UserError
from ...tower.configuration import ToVEVisionConfig
from ...tower.image_processing import ToVEImageProcessor
from ..names import read_tower_config
from .packing import pack
from .source import build_frozen, locate


class ToVELlavaTower(nn.Module):
    """CLIP and experts, frozen; gate and transfer are in the projector, where LLaVA trains, saves and schedules them.

    Args:
        vision_tower: `tove` or `tove:PATH`; kept for code that reads the name.
        args: LLaVA's model config or its training arguments.
        delay_load: Read the architecture only; `load_model` reads the weights.

    Raises:
        UserError: There is no such tower, or LLaVA's settings ask it for what it does not do.
    """

    def __init__(self, vision_tower: str, args: Any, delay_load: bool = False):
        super().__init__()
        self.is_loaded = False
        self.vision_tower_name = vision_tower
        self.path = locate(args)
        self.cfg_only = read_tower_config(self.path)
        _check_settings(args, self.cfg_only, vision_tower)
        self.select_layer, self.select_feature = self.cfg_only.select_layer, "patch"
        self._widths: dict[tuple[str, ...], int] = {}
        # On the meta device the host is about to fill the model from a checkpoint, which must not touch the tower.
        if not delay_load and torch.get_default_device().type != "meta":
            self.load_model()

    def load_model(self, device_map: Any = None) -> None:
        """Read the weights, once.

        Args:
            device_map: A device, or what LLaVA passes to CLIP: `auto` (CUDA where there is one) or `{"": device}`.

        Raises:
            WeightsError: They are missing or do not fit.
        """
        if self.is_loaded:
            return
        self.vision_tower = build_frozen(self.path).to(_device(device_map))
        self.image_processor = ToVEImageProcessor.for_tower(self.config)
        self.is_loaded = True

    @torch.no_grad()
    def forward(self, images: torch.Tensor | list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        """Packed features.

        Args:
            images: (B, 3, H, W), or a list of (3, H, W).

        Returns:
            (B, N, C), or a list of (1, N, C), in the dtype of the images.
        """
        if isinstance(images, list):
            return [self(image[None]) for image in images]
        frozen = self.vision_tower.encode_frozen(images.to(self.device))
        return pack(frozen, self.vision_tower.expert_names).to(images.dtype)

    def requires_grad_(self, requires_grad: bool = True) -> "ToVELlavaTower":
        """Nothing to do: all of it is frozen.

        Raises:
            UserError: It was asked to train.
        """
        if requires_grad:
            raise UserError(_NOT_TRAINABLE)
        return super().requires_grad_(False)

    # ---- what LLaVA and its forks read ----

    @property
    def config(self) -> ToVEVisionConfig:
        """Of the tower; its `hidden_size` is CLIP's."""
        return self.vision_tower.config if self.is_loaded else self.cfg_only

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.vision_tower.dtype

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return self.vision_tower.device

    @property
    def hidden_size(self) -> int:
        """C, found by packing one image; LLaVA writes it down as `mm_hidden_size`.

        Raises:
            UserError: The weights are not loaded yet.
        """
        if not self.is_loaded:
            raise UserError("the packed width of a ToVE tower is known once load_model() has been called")
        attached = tuple(self.vision_tower.attached_names)
        if attached not in self._widths:
            size = self.config.image_size
            image_B3HW = torch.zeros(1, 3, size, size, device=self.device, dtype=self.dtype)
            self._widths[attached] = self(image_B3HW).shape[-1]
        return self._widths[attached]

    @property
    def image_size(self) -> int:
        """Side of the input in pixels."""
        return self.config.image_size

    @property
    def num_patches_per_side(self) -> int:
        """Tokens along a side."""
        return self.config.side

    @property
    def num_patches(self) -> int:
        """N."""
        return self.config.num_tokens

    @property
    def dummy_feature(self) -> torch.Tensor:
        """(1, C) zeros."""
        return torch.zeros(1, self.hidden_size, device=self.device, dtype=self.dtype)


_NOT_TRAINABLE = (
    "the CLIP and the experts of a ToVE tower are frozen: leave `unfreeze_mm_vision_tower` and `mm_vision_tower` in "
    "`mm_tunable_parts` out; what is trained is the projector, which holds the gate and the transfer"
)


def _check_settings(args: Any, config: ToVEVisionConfig, name: str) -> None:
    tunable = str(getattr(args, "mm_tunable_parts", None) or "").split(",")
    if getattr(args, "unfreeze_mm_vision_tower", False) or "mm_vision_tower" in tunable:
        raise UserError(_NOT_TRAINABLE)
    feature = getattr(args, "mm_vision_select_feature", "patch")
    if feature != "patch":
        raise UserError(f"`mm_vision_select_feature` is `{feature}`; a ToVE tower gives `patch` tokens only")
    if config.clip_config is None:
        return  # the layer of another base is in the tower's YAML alone
    layer = getattr(args, "mm_vision_select_layer", config.select_layer)
    num_states = config.clip_config["num_hidden_layers"] + 1
    if layer % num_states != config.select_layer % num_states:
        raise UserError(
            f"`mm_vision_select_layer` is {layer}, but the tower `{name}` uses CLIP's layer {config.select_layer}: "
            f"write --mm_vision_select_layer {config.select_layer}"
        )


def _device(device_map: Any) -> Any:
    if isinstance(device_map, dict):
        device_map = next(iter(device_map.values()))
    if device_map in (None, "auto"):
        automatic = device_map == "auto" and torch.cuda.is_available()
        return "cuda" if automatic else "cpu"
    return device_map
