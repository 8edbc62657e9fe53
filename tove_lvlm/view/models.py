"""A loaded model as the page needs it: asked with experts switched off, timed, looked into. Runs in the worker."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import LoadedCheckpoint, load_model
from ..config import UserError
from ..inference import responder_of
from ..inference.batching import DecodingConfig, PixelReader, human_turn
from ..surgery.probe_data import read_probe_data
from ..surgery.usage import measure_usage
from ..viz.gates import find_gated_tower, read_gates
from .requests import Answer, Ask, Done, Look, MeasureUsage, ModelAbout, Seen, Text, Usage

Tell = Callable[[Text | Done], bool]
"""Told of what is there so far; what it returns is whether to go on."""


class Cancelled(Exception):  # noqa: N818  no error
    """Whoever asked does not wait any more."""


class ViewedModel:
    """A model that answers `Ask`, `Look` and `MeasureUsage`.

    Args:
        folder: As for `load_model`.
        device: Where to.

    Raises:
        UserError: The folder holds no model that answers.
    """

    def __init__(self, folder: Path, device: str):
        self._loaded: LoadedCheckpoint = load_model(folder)
        self._loaded.model.to(device).eval()
        self._responder = responder_of(self._loaded.model, self._loaded.processor)
        self._read_pixels = PixelReader(
            self._loaded.image_processor, self._loaded.image_aspect_ratio, apply_exif=True, remembered_bytes=64 << 20
        )
        tower = self._loaded.tower
        self._experts = () if tower is None else tuple(tower.expert_names)
        self._first_detached = () if tower is None else tuple(tower.config.detached)

    def about(self, folder: Path, name: str) -> ModelAbout:
        """What the page says of it.

        Args:
            folder: As it was given.
            name: Unlike those of the other models.
        """
        count = sum(parameter.numel() for parameter in self._loaded.model.parameters())
        dtype = str(self._loaded.dtype).removeprefix("torch.")
        return ModelAbout(
            folder=folder,
            name=name,
            experts=self._experts,
            detached=self._first_detached,
            keeps_conversation=not self._loaded.checkpoint.is_bare,
            about=f"{count / 1e6:,.1f} M parameters, {dtype}, {self._loaded.device}",
        )

    def ask(self, request: Ask, tell: Tell) -> Answer:
        """Answer a question, told token by token.

        Args:
            request: Of this model.
            tell: Told of the text so far.

        Raises:
            UserError, DataError: It cannot be asked this.
        """
        self._switch(request.detached)
        conversation = _conversation(request.earlier, request.question)
        row = self._responder.encode_turns(conversation, num_images=1)
        pixels_3HW = self._read_pixels(request.picture)
        times: list[float] = []
        goes_on = True

        def on_text(text: str, num: int) -> bool:
            nonlocal goes_on
            times.append(time.perf_counter())
            goes_on = tell(Text(text=text))
            return goes_on

        with _timed_tower(self._loaded) as tower_seconds:
            start = self._now()
            (text,) = self._responder.generate(
                [row], [pixels_3HW], DecodingConfig(max_new_tokens=request.max_new_tokens), on_text
            )
        decoding = times[-1] - times[0]
        return Answer(
            text=text,
            tower_ms=1000 * sum(tower_seconds),
            first_token_ms=1000 * (times[0] - start),
            tokens_per_second=(len(times) - 1) / decoding if len(times) > 1 and decoding > 0 else None,
            memory_bytes=self._memory(),
            cancelled=not goes_on,
        )

    @torch.inference_mode()
    def look(self, request: Look) -> Seen:
        """What the tower makes of a picture.

        Raises:
            UserError, DataError: There is no such picture or expert.
        """
        self._switch(request.detached)
        pixels_13HW = self._read_pixels(request.picture)[None].to(self._loaded.device, self._loaded.dtype)
        tower, gates, why = None, None, ""
        try:
            tower = find_gated_tower(self._loaded)
        except UserError as error:
            why = str(error)
        with _timed_tower(self._loaded) as seconds:
            if tower is None:
                self._loaded.vision_tower(pixels_13HW)
            else:
                (gates,) = read_gates(tower, pixels_13HW)
        return Seen(gates=gates, why=why, tower_ms=1000 * sum(seconds), memory_bytes=self._memory())

    def usage(self, request: MeasureUsage, tell: Tell) -> Usage:
        """How the experts are used over some pictures, all those attached that were when the model was loaded.

        Raises:
            UserError, DataError: There is no gate, or no picture that can be read.
        """
        self._switch(self._first_detached)

        def progress(done: int, total: int) -> None:
            if not tell(Done(done=done, total=total)):
                raise Cancelled

        data = read_probe_data(images=request.folder)
        try:
            return Usage(report=measure_usage(self._loaded, data, batch_size=request.batch_size, progress=progress))
        except Cancelled:
            return Usage(report=None)

    def _switch(self, detached: Sequence[str]) -> None:
        """Let exactly these experts take no part."""
        tower = self._loaded.tower
        if tower is None:
            if detached:
                raise UserError(f"`{self._loaded.folder}` has no experts to switch off")
            return
        unknown = [name for name in detached if name not in self._experts]
        if unknown:
            raise UserError(f"there is no expert `{unknown[0]}`; the tower has {', '.join(self._experts)}")
        if attach := [name for name in tower.config.detached if name not in detached]:
            tower.attach(*attach)
        if away := [name for name in detached if name not in tower.config.detached]:
            tower.detach(*away)

    def _memory(self) -> int:
        tensors = [*self._loaded.model.parameters(), *self._loaded.model.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def _now(self) -> float:
        _wait_for(self._loaded.device)
        return time.perf_counter()


def _conversation(earlier: Sequence[tuple[str, str]], question: str) -> list[dict[str, str]]:
    """LLaVA's turns, the picture in the first."""
    asked = [question for question, _ in earlier] + [question]
    turns: list[dict[str, str]] = []
    for number, text in enumerate(asked):
        turns.append(human_turn(text, num_images=1 if number == 0 else 0))
        if number < len(earlier):
            turns.append({"from": "gpt", "value": earlier[number][1]})
    return turns


@contextmanager
def _timed_tower(loaded: LoadedCheckpoint) -> Iterator[list[float]]:
    """Seconds of each forward of the vision tower while the block runs."""
    seconds: list[float] = []
    starts: list[float] = []

    def before(module: Any, args: Any) -> None:
        _wait_for(loaded.device)
        starts.append(time.perf_counter())

    def after(module: Any, args: Any, output: Any) -> None:
        _wait_for(loaded.device)
        seconds.append(time.perf_counter() - starts.pop())

    tower = loaded.vision_tower
    handles = [tower.register_forward_pre_hook(before), tower.register_forward_hook(after)]
    try:
        yield seconds
    finally:
        for handle in handles:
            handle.remove()


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
