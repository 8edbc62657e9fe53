"""LLaVA's projector with the tower's gate and transfer in front of it.

Stock LLaVA trains, saves, loads and schedules what is called `mm_projector`, so all that is trained of the tower is in
here. The names of LLaVA's own layers stay (`mm_projector.0.weight`); beside them stands `mm_projector.tove_fusion`.

Shapes: B images, N tokens, C packed width, D CLIP width.

See docs/hosts.md, "Projector in LLaVA".
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from ...experts import describe
from ...storage import WeightsError, load_strict, misfits
from ...tower.checks import transfer_hint
from ...tower.configuration import ToVEVisionConfig
from ...tower.init import init_weights
from ...tower.make import make_fusion
from ..names import NAME, read_tower_config
from .packing import unpack
from .source import locate, saved_fusion

_INITIALIZED = "_is_hf_initialized"
"""transformers' mark of what has its first values."""


class ToVEProjector(PreTrainedModel):
    """`tove_fusion`, then LLaVA's own projector.

    A `PreTrainedModel` only so that transformers, which fills the model around it, leaves the first values to it.

    Args:
        config: Of the tower.
        stock: What LLaVA builds for the tokens of this tower's CLIP.
        origin: What the weights come from, for messages.
    """

    config_class = ToVEVisionConfig
    base_model_prefix = "tove_projector"
    main_input_name = "packed_BNC"
    _supports_sdpa = True

    def __init__(self, config: ToVEVisionConfig, stock: nn.Module, origin: str = "the checkpoint"):
        super().__init__(copy.deepcopy(config))
        self.origin = origin
        specs = [describe(entry) for entry in config.experts]
        self.channels = {spec.name: spec.channels for spec in specs}
        self.layers = []
        for index, layer in enumerate(stock if isinstance(stock, nn.Sequential) else [stock]):
            self.add_module(str(index), layer)
            self.layers.append(str(index))
            if not any(parameter.is_meta for parameter in layer.parameters()):
                layer.apply(_keep)  # LLaVA's own start
        self.tove_fusion = make_fusion(config)
        self.post_init()

    def forward(self, packed_BNC: torch.Tensor | list[torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """Tokens for the language model.

        Args:
            packed_BNC: What the tower gave, whole images in any order; or a list of such.
            *args: For LLaVA's own layers, which take none but in forks.
            **kwargs: The same.

        Raises:
            ValueError: It is not what the tower gave.
        """
        if isinstance(packed_BNC, list | tuple):
            return [self(packed, *args, **kwargs) for packed in packed_BNC]
        frozen = unpack(packed_BNC, self.channels, self.config.base_width)
        x = self.tove_fusion(*frozen).t_fuse_BND
        for name in self.layers:
            x = self.get_submodule(name)(x, *args, **kwargs)
        return x

    # ---- first values, and nothing random instead of a trained one ----

    def _init_weights(self, module: nn.Module) -> None:
        if module in set(self.tove_fusion.modules()):
            init_weights(module)
        else:
            super()._init_weights(module)

    def _initialize_weights(self, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        """transformers' walk over the modules after building or loading; the projector itself comes last."""
        super()._initialize_weights(module, *args, **kwargs)
        if module is self:
            parameters = dict(self.named_parameters())
            loaded = {key: t for key, t in parameters.items() if getattr(t, _INITIALIZED, False)}
            if loaded and len(loaded) < len(parameters):
                raise_misfits(parameters, loaded, self.origin)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """LLaVA loads with strict=False: a state dict that has anything of the projector must have all of it."""
        loaded = {key.removeprefix(prefix): t for key, t in state_dict.items() if key.startswith(prefix)}
        if loaded:
            raise_misfits(self.state_dict(), loaded, self.origin if not prefix else f"state dict for `{prefix[:-1]}`")
        super()._load_from_state_dict(state_dict, prefix, *args)


def build_projector(original: Callable[..., nn.Module], config: Any, *args: Any, **kwargs: Any) -> ToVEProjector:
    """The projector of a ToVE tower around what LLaVA builds for CLIP's tokens.

    Args:
        original: LLaVA's own builder.
        config: LLaVA's model config; its tower's name is made absolute in it, so that PATH survives saving.
        *args: For LLaVA's builder.
        **kwargs: The same.

    Raises:
        UserError: There is no such tower.
    """
    path = locate(config)
    tower_config = read_tower_config(path)
    config.mm_vision_tower = f"{NAME}:{path}"
    stock = original(_for_clip(config, tower_config), *args, **kwargs)
    projector = ToVEProjector(tower_config, stock, origin=str(getattr(config, "name_or_path", "") or "the checkpoint"))
    fusion = saved_fusion(path)
    if fusion is not None and not any(parameter.is_meta for parameter in projector.parameters()):
        load_strict(projector.tove_fusion, fusion, where=path)
    return projector


def expected_projector(original: Callable[..., nn.Module], config: Any) -> dict[str, torch.Tensor]:
    """Names and shapes of the projector that a model's config asks for, on the meta device.

    Args:
        original: LLaVA's own builder.
        config: LLaVA's model config, or its fields in a namespace.

    Raises:
        UserError: There is no such tower.
    """
    tower_config = read_tower_config(locate(config))
    with torch.device("meta"):
        stock = original(_for_clip(config, tower_config), vision_cfg=tower_config)
        return ToVEProjector(tower_config, stock).state_dict()


def _for_clip(config: Any, tower_config: ToVEVisionConfig) -> Any:
    """LLaVA's own layers see tokens of CLIP's width."""
    config = copy.copy(config)
    config.mm_hidden_size = tower_config.hidden_size
    return config


def raise_misfits(expected: Mapping[str, torch.Tensor], loaded: Mapping[str, torch.Tensor], where: str) -> None:
    """Refuse tensors that are not exactly the projector's.

    Args:
        expected: The projector's state dict.
        loaded: From a file, named as in the projector.
        where: The file.

    Raises:
        WeightsError: Names the file and the first keys.
    """
    problems = misfits(expected, loaded)
    if not problems:
        return
    hint = ""
    if not any(key.startswith("tove_fusion.") for key in loaded):
        hint = (
            "; it was trained with another vision tower (a plain CLIP?): `tove graft` gives such a model a ToVE tower"
        )
    hint += transfer_hint(expected, loaded)
    raise WeightsError(f"{where}: the projector does not fit its ToVE tower: {'; '.join(problems)}{hint}")


def _keep(module: nn.Module) -> None:
    setattr(module, _INITIALIZED, True)
