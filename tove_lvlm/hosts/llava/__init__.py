"""The tower inside unmodified LLaVA, LLaVA-NeXT and TinyLLaVA Factory: `mm_vision_tower: tove`. HOSTS.md section 1.

    from tove_lvlm.hosts import llava
    llava.register()

or, from a shell, `python -m tove_lvlm.hosts.llava MODULE ARGS...` for any module of the host.
"""

from .register import register

__all__ = ["register"]
