"""Old name of `tove_lvlm.eval.tasks.base`, for tasks that are written outside this package."""

from ..config import warn_deprecated
from .io.find import Layout
from .io.items import Item
from .io.problems import Problems
from .metrics.score import Score
from .tasks.base import GENERATE, LIKELIHOOD, TASKS, Task

__all__ = ["GENERATE", "LIKELIHOOD", "TASKS", "Item", "Layout", "Problems", "Score", "Task"]

warn_deprecated(
    "`tove_lvlm.eval.task` is deprecated: Task and TASKS are in `tove_lvlm.eval.tasks.base`, Item in `eval.io.items`, "
    "Layout in `eval.io.find`, Score in `eval.metrics.score`"
)
