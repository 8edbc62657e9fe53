"""Pictures of a model while it is trained, in tensorboard's events, with no trace of it in the training.

What is drawn is the recipe's; that the run goes on as if nothing had been drawn is assured here.

See docs/design.md, "Training".
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from .random_states import random_states, set_random_states
from .stage import Pictures


class DrawPictures(TrainerCallback):
    """Draws after every so many optimizer steps, and after the last; on rank 0, while the others wait for its next
    step.

    Args:
        trainer: Its model is drawn, between two steps.
        pictures: What, and how often.
    """

    def __init__(self, trainer: Any, pictures: Pictures):
        self.trainer, self.pictures = trainer, pictures

    def on_step_end(self, args, state, control, **kwargs):
        """Draw if this is such a step."""
        if state.is_world_process_zero and (
            state.global_step % self.pictures.every == 0 or state.global_step >= state.max_steps
        ):
            self._draw(state.global_step)

    def _draw(self, step: int) -> None:
        started = time.perf_counter()
        # One writer for all of a run: tensorboard follows only the newest file of a folder.
        callbacks = self.trainer.callback_handler.callbacks
        writer = next(one for one in callbacks if isinstance(one, TensorBoardCallback)).tb_writer
        with undisturbed(self.trainer.model), self.trainer.accelerator.autocast():
            drawn = self.pictures.draw()
        for name, picture_HW3 in drawn.items():
            writer.add_image(name, picture_HW3, step, dataformats="HWC")
        writer.flush()
        self.trainer.meter.started += time.perf_counter() - started  # the logged throughput is the training's
        self.trainer.watchdog.alive(step)


@contextlib.contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode without gradients while inside; afterwards each module's mode and all random states are as before.

    Args:
        model: Whatever is run inside.
    """
    modes = [(module, module.training) for module in model.modules()]
    states = random_states()
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        set_random_states(states)
