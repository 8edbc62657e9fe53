"""TinyLLaVA Factory: a tower and a connector in its registers; nothing is replaced.

    --vision_tower tove:FOLDER --connector_type tove_mlp2x_gelu

FOLDER is a saved tower, because TinyLLaVA reads its config.json. Names match by substring there and the last one
registered wins, so `tove_mlp2x_gelu` means this connector around TinyLLaVA's `mlp2x_gelu`.

See docs/hosts.md, "LLaVA family".
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ...config import UserError
from ...tower.configuration import ToVEVisionConfig
from ...tower.image_processing import ToVEImageProcessor
from ...tower.modeling import ToVEVisionModel
from ..names import NAME, tower_path
from .packing import pack
from .projector import ToVEProjector
from .source import FusionElsewhere, build_frozen

_PREFIX = f"{NAME}_"


def register_classes(
    register_vision_tower: Callable[[str], Callable[[type], type]],
    register_connector: Callable[[str], Callable[[type], type]],
) -> None:
    """File the tower and the connector; TinyLLaVA's registers keep the first of a name, so this may be called again."""
    from tinyllava.model.connector import ConnectorFactory
    from tinyllava.model.connector.base import Connector
    from tinyllava.model.vision_tower.base import VisionTower

    @register_vision_tower(NAME)
    class ToVETinyTower(VisionTower):
        """Frozen CLIP and experts; features come out packed."""

        def __init__(self, cfg: ToVEVisionConfig):
            super().__init__(cfg)
            if not isinstance(cfg, ToVEVisionConfig):
                raise UserError(f"vision tower `{NAME}`: its config is that of a {type(cfg).__name__}, not of a tower")
            self._vision_tower = ToVEVisionModel(copy.deepcopy(cfg))
            self._vision_tower.tove_fusion = FusionElsewhere()
            self._image_processor = ToVEImageProcessor.for_tower(cfg)

        def _load_model(self, vision_tower_name: str, **kwargs: Any) -> None:
            # Stage 1's copy in `pretrained_vision_tower_path` is left alone: the tower is frozen, its source is better.
            parameter = next(self._vision_tower.parameters())
            dtype = kwargs.get("torch_dtype") or parameter.dtype
            self._vision_tower = build_frozen(tower_path(f"{NAME}:{vision_tower_name}", "vision_tower")).to(dtype)

        @torch.no_grad()
        def forward(self, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            strategy = kwargs.get("vision_feature_select_strategy", "patch")
            layer = kwargs.get("vision_feature_layer", self.config.select_layer)
            if strategy != "patch" or layer != self.config.select_layer:
                raise UserError(
                    f"TinyLLaVA asks for layer {layer}, `{strategy}`; this tower gives layer "
                    f"{self.config.select_layer}, `patch`: set --mm_vision_select_layer and --mm_vision_select_feature"
                )
            frozen = self._vision_tower.encode_frozen(x)
            return pack(frozen, self._vision_tower.expert_names).to(x.dtype)

        def requires_grad_(self, requires_grad: bool = True) -> nn.Module:
            if requires_grad:
                raise UserError("the CLIP and the experts of a ToVE tower are frozen: --tune_type_vision_tower frozen")
            return super().requires_grad_(False)

    @register_connector(NAME)
    class ToVETinyConnector(Connector):
        """Gate and transfer in front of TinyLLaVA's own connector."""

        def __init__(self, config: Any):
            super().__init__()
            connector_name = config.connector_type
            if not connector_name.startswith(_PREFIX) or not isinstance(config.vision_config, ToVEVisionConfig):
                raise UserError(
                    f"connector `{connector_name}` is for a ToVE tower and is called `{_PREFIX}mlp2x_gelu` or the like"
                )
            plain = copy.copy(config)
            plain.connector_type = connector_name.removeprefix(_PREFIX)
            plain.vision_hidden_size = config.vision_config.hidden_size
            inner = ConnectorFactory(plain.connector_type)(plain)
            self._connector = ToVEProjector(config.vision_config, inner._connector, origin="TinyLLaVA's connector")
