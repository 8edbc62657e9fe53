"""ToVE for LVLMs: a frozen CLIP, a hub of frozen vision experts and a token-aware gate as one drop-in vision tower.

Importing this package registers `tove_vision` with transformers. The registration waits until transformers itself is
imported (at once, when it already is), so that the import costs nothing and loads nothing heavy.
"""

from typing import TYPE_CHECKING

from ._hook import register_when_imported
from ._moved import keep_old_names

if TYPE_CHECKING:
    from .tower.build import build_tower
    from .tower.configuration import ToVEVisionConfig
    from .tower.image_processing import ToVEImageProcessor
    from .tower.modeling import ToVEVisionModel

__version__ = "0.1.0"
__all__ = ["ToVEImageProcessor", "ToVEVisionConfig", "ToVEVisionModel", "__version__", "build_tower"]

_HOMES = {
    "build_tower": "tove_lvlm.tower.build",
    "ToVEVisionConfig": "tove_lvlm.tower.configuration",
    "ToVEImageProcessor": "tove_lvlm.tower.image_processing",
    "ToVEVisionModel": "tove_lvlm.tower.modeling",
}


def __getattr__(name: str):
    """Public names load on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module `tove_lvlm` has no attribute `{name}`")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


keep_old_names()
register_when_imported()
