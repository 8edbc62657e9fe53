"""What this package writes and reads: a class for each form of checkpoint, and one way to find out which it is.

See docs/design.md, "LVLM checkpoints".
"""

from .base import Checkpoint, LoadedCheckpoint, save_with_experts
from .detect import FORMS, detect, load_model, open_checkpoint, open_tower

__all__ = [
    "FORMS",
    "Checkpoint",
    "LoadedCheckpoint",
    "detect",
    "load_model",
    "open_checkpoint",
    "open_tower",
    "save_with_experts",
]
