"""What of ours makes the host wait for a device in a step of training."""

import sys
from pathlib import Path

import torch

import tove_lvlm

_PACKAGE = Path(tove_lvlm.__file__).parent
_READS = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "nonzero")
_MADE = ("tensor", "as_tensor", "from_numpy", "nonzero")
ALLOWED = {("agreement.py", "tolist")}
"""Of a copy on the host, at a step's end."""


def watch(monkeypatch) -> set[tuple[str, str]]:
    """Calls of ours that read a tensor's value or send a constant to a device, (file, function), as they come."""
    calls: set[tuple[str, str]] = set()

    def watch_one(owner, name):
        inner = getattr(owner, name)

        def called(*args, **kwargs):
            file = Path(sys._getframe(1).f_code.co_filename)
            on_the_host = file.parent.name == "data" and file.name != "pixel_table.py"  # what the loader's workers do
            if file.is_relative_to(_PACKAGE) and not on_the_host:
                calls.add((file.name, name))
            return inner(*args, **kwargs)

        monkeypatch.setattr(owner, name, called)

    for owner, names in ((torch.Tensor, _READS), (torch, _MADE)):
        for name in names:
            watch_one(owner, name)
    return calls


def waits_of_a_step(trainer, monkeypatch) -> set[tuple[str, str]]:
    """What waits in the second and third step of a run; in the first one constants are made, once."""
    calls, found = watch(monkeypatch), []
    begin, end = trainer.callback_handler.on_step_begin, trainer.end_step

    def on_step_begin(*args):
        if trainer.state.global_step == 1:
            calls.clear()
        return begin(*args)

    def end_step():
        end()
        if trainer.state.global_step == 3:
            found.append(set(calls))

    trainer.callback_handler.on_step_begin, trainer.end_step = on_step_begin, end_step
    trainer.train()
    assert ("meter.py", "tolist") in calls, "the log line at the end reads"
    return found[0]
