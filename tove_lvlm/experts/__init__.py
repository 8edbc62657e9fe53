"""The vision experts: frozen networks that turn pixels into a grid of features or a map.

Names load on first use, so that a tower's YAML is checked against `experts.schema` before torch is imported.
"""

import importlib
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import EXPERTS, Expert, ExpertSpec, build_expert, describe, register_expert
    from .hub import ExpertHub
    from .schema import ExpertConfig

__all__ = [
    "EXPERTS",
    "Expert",
    "ExpertConfig",
    "ExpertHub",
    "ExpertSpec",
    "build_expert",
    "describe",
    "register_expert",
]

_HOMES = {**dict.fromkeys(__all__, "base"), "ExpertConfig": "schema", "ExpertHub": "hub"}


def __getattr__(name: str):
    """Public names load on first use (PEP 562)."""
    if name == "ExpertFields":
        warnings.warn("`ExpertFields` is called `ExpertConfig` now", FutureWarning, stacklevel=2)
        name = "ExpertConfig"
    if name not in _HOMES:
        raise AttributeError(f"module `tove_lvlm.experts` has no attribute `{name}`")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
