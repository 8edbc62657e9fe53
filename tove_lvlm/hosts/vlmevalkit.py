"""Old name of `tove_lvlm.harnesses.vlmevalkit`."""

import runpy

from ..config import warn_deprecated
from ..harnesses.vlmevalkit import ToVEVLM, register

__all__ = ["ToVEVLM", "register"]

warn_deprecated("`tove_lvlm.hosts.vlmevalkit` is deprecated: it is called `tove_lvlm.harnesses.vlmevalkit`")

if __name__ == "__main__":
    runpy.run_module("tove_lvlm.harnesses.vlmevalkit", run_name="__main__", alter_sys=True)
