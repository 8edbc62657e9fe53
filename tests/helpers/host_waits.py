"""Where a value goes from the host to the device or comes back, whatever in torch does it: torch's own operators tell.

`x[:, [0, 2]]` sends its list to the device, as `torch.tensor` does; on CUDA the host waits until all that is queued
there is done. On a CPU and on the meta device the same operators are called. `helpers.waits` sees only calls that our
own code makes by name.
"""

import sys
from pathlib import Path

from torch.utils._python_dispatch import TorchDispatchMode

import tove_lvlm

_PACKAGE = Path(tove_lvlm.__file__).parent
_OPERATORS = {
    "aten::lift_fresh": "a constant is sent",
    "aten::_local_scalar_dense": "a value is read",
    "aten::nonzero": "a size depends on values",
    "aten::masked_select": "a size depends on values",
}


class HostWaits(TorchDispatchMode):
    """Lists in `found` what goes between host and device while it is entered: (file and line of ours, what)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[str, str]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if name in _OPERATORS:
            self.found.add((_place(), _OPERATORS[name]))
        return func(*args, **(kwargs or {}))


def _place() -> str:
    frame = sys._getframe(2)
    while frame is not None and not Path(frame.f_code.co_filename).is_relative_to(_PACKAGE):
        frame = frame.f_back
    return "not ours" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
