"""Old name of `tove_lvlm.harnesses.lmms_eval`; an environment installed before it has this one as its entry point."""

import runpy

from ..config import warn_deprecated
from ..harnesses import lmms_eval
from ..harnesses.lmms_eval import TASKS, manifest

__all__ = ["TASKS", "manifest"]
__path__ = lmms_eval.__path__  # its modules have their old names too, which copies of the task YAMLs may hold

warn_deprecated("`tove_lvlm.hosts.lmms_eval` is deprecated: it is called `tove_lvlm.harnesses.lmms_eval`")

if __name__ == "__main__":
    runpy.run_module("tove_lvlm.harnesses.lmms_eval", run_name="__main__", alter_sys=True)
