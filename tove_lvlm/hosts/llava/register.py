"""Put the tower into an installed LLaVA, none of its files edited.

LLaVA's builders of tower and projector are wrapped where they are defined and where they are used; any name but
`tove` goes to LLaVA's own. Its loader is wrapped to look at a checkpoint's files before it reads them leniently.

See docs/hosts.md, "LLaVA".
"""

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from ...config import UserError
from ...registry import nearest
from ..names import NAME, is_tove
from .checks import check_adapter, checked_checkpoint
from .family import check_surface, find_host
from .projector import build_projector
from .source import tower_name
from .tinyllava import register_classes
from .tower import ToVELlavaTower

_MARK = "_tove_original"


def register(host: str | None = None) -> str:
    """Make `mm_vision_tower: tove` and `tove:PATH` known to LLaVA, LLaVA-NeXT or TinyLLaVA; may be called again.

    Args:
        host: `llava`, `llava_next` or `tinyllava`; the one that is installed when left out.

    Returns:
        Which host it was.

    Raises:
        ImportError: No such host is installed.
        UserError: It lacks a function that the plugin builds on.
    """
    name, layout = find_host(host)
    modules = check_surface(layout)
    if layout.registers:
        register_classes(*(getattr(module, function) for (_, function), module in modules.items()))
        return name
    originals = {
        function: getattr(getattr(module, function), _MARK, getattr(module, function))
        for (_, function), module in modules.items()
    }
    wrapped = {
        "build_vision_tower": _wrap_tower(originals["build_vision_tower"]),
        "build_vision_projector": _wrap_projector(originals["build_vision_projector"]),
        "load_pretrained_model": _wrap_loader(originals["load_pretrained_model"], originals["build_vision_projector"]),
    }
    for module_name, function in layout.replaced:
        module = modules[module_name, function]
        if not hasattr(getattr(module, function), _MARK):
            setattr(wrapped[function], _MARK, originals[function])
            setattr(module, function, wrapped[function])
    return name


def _wrap_tower(original: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    @functools.wraps(original)
    def build_vision_tower(vision_tower_cfg: Any, **kwargs: Any) -> nn.Module:
        name = tower_name(vision_tower_cfg)
        if is_tove(name):
            tower = ToVELlavaTower(name, args=vision_tower_cfg, **kwargs)
            check_adapter(getattr(vision_tower_cfg, "pretrain_mm_mlp_adapter", None), tower.cfg_only)
            return tower
        if name is None:
            raise UserError("no vision tower is named: give --vision_tower, or `mm_vision_tower` in the model's config")
        try:
            return original(vision_tower_cfg, **kwargs)
        except ValueError as error:
            if "Unknown vision tower" not in str(error):
                raise
            hint = nearest(str(name).partition(":")[0].lower(), [NAME, "openai/...", "laion/..."])
            raise UserError(f"unknown vision tower `{name}`; {hint} (`{NAME}:PATH` names a ToVE tower)") from error

    return build_vision_tower


def _wrap_projector(original: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    @functools.wraps(original)
    def build_vision_projector(config: Any, *args: Any, **kwargs: Any) -> nn.Module:
        if not is_tove(tower_name(config)):
            return original(config, *args, **kwargs)
        return build_projector(original, config, *args, **kwargs)

    return build_vision_projector


def _wrap_loader(original: Callable[..., Any], projector_builder: Callable[..., nn.Module]) -> Callable[..., Any]:
    @functools.wraps(original)
    def load_pretrained_model(model_path: str, model_base: str | None, model_name: str, *args: Any, **kwargs: Any):
        with checked_checkpoint(projector_builder, model_path, model_base, model_name):
            return original(model_path, model_base, model_name, *args, **kwargs)

    return load_pretrained_model
