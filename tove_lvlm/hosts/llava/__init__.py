"""The tower inside unmodified LLaVA, LLaVA-NeXT and TinyLLaVA Factory: `mm_vision_tower: tove`.

    from tove_lvlm.hosts import llava
    llava.register()

or, from a shell, `python -m tove_lvlm.hosts.llava MODULE ARGS...` for any module of the host.

See docs/hosts.md, "LLaVA".
"""

from .register import register

__all__ = ["EXTRA", "KEY", "register"]

EXTRA, KEY = "llava", "mm_vision_tower"
