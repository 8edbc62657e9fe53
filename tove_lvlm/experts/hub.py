"""The hub of frozen experts: one call runs all that are attached.

Shapes: B images, C channels of an expert's grid, h w its sides.

See docs/design.md, "Experts".
"""

from collections.abc import Collection, ItemsView, Iterable, Mapping, ValuesView
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .base import Expert
from .memory_format import is_convolutional, set_channels_last
from .preprocess import Preprocessing, normalised, picture, resized

_GRAPHS = 8
"""Of one compiled expert: torch makes one for the first shape, one for any number of images, and more where a setting
such as autocast or attention changes."""


class ExpertHub(nn.ModuleDict):
    """Attached experts by name, in the tower's order. They are frozen, run without gradient and stay in eval mode.

    Args:
        experts: Name -> expert.
    """

    streams: bool = False
    """On a CUDA device, run every expert on a stream of its own. The grids are the same; whether it is faster depends
    on how well a single expert fills the device (benchmarks/tower_overhead.py). Not for ZeRO-3, whose own streams
    fetch the weights."""
    channels_last: bool = False
    """Convolutional experts have their weights and pixels in torch's `channels_last` memory format, from the next call
    on: not before, because DeepSpeed's start reads weights as bytes in their order. The grids are the same but for the
    order of sums; names and values of weights, and so a saved tower, are what they were. Not for ZeRO-3."""

    def __init__(self, experts: Mapping[str, Expert] | Iterable[tuple[str, Expert]] = ()):
        super().__init__(dict(experts))
        self.train(False)

    if TYPE_CHECKING:
        # What a ModuleDict gives is an Expert here.
        def __getitem__(self, key: str) -> Expert: ...
        def pop(self, key: str) -> Expert: ...
        def values(self) -> ValuesView[Expert]: ...
        def items(self) -> ItemsView[str, Expert]: ...

    def train(self, mode: bool = True) -> "ExpertHub":
        """Stays in eval mode whatever is asked."""
        return super().train(False)

    @property
    def convolutional_names(self) -> list[str]:
        """The experts that `channels_last` is for, in order."""
        return [name for name, expert in self.items() if is_convolutional(expert)]

    def compile_experts(self, **options: Any) -> None:
        """Run each expert's forward through `torch.compile`, from the next call on.

        Names of weights stay what they were, and a saved tower knows nothing of it. An expert that is read from disk
        later (`attach`) is not compiled. Raises torch's limit of graphs (`torch._dynamo.config.recompile_limit`, 8),
        which goes for all experts together, since they share `Expert.forward`: beyond it torch runs them uncompiled.

        Args:
            **options: Of `torch.compile`, for example `mode="max-autotune"`.
        """
        from torch._dynamo import config

        config.recompile_limit = max(config.recompile_limit, _GRAPHS * len(self))
        for expert in self.values():
            expert.compile(**options)

    @torch.no_grad()
    def forward(
        self,
        pixels_B3HW: torch.Tensor,
        source: Preprocessing,
        dtype: torch.dtype | None = None,
        resample: str = "bicubic",
        names: Collection[str] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Run every attached expert once.

        Args:
            pixels_B3HW: Normalised as `source` says; resized once for each distinct size, normalised once for each
                distinct size, mean and std.
            source: The tower's own size, mean and std.
            dtype: Dtype of the grids; that of the pixels when it is left out.
            resample: As `mode` of `preprocess.resized`.
            names: Run these only.

        Returns:
            Name -> (B, C, h, w), without gradient.

        Raises:
            ValueError: An expert's grid is not what its spec says.
            UserError: `channels_last`, and ZeRO-3 holds the weights of a convolutional expert in pieces.
        """
        experts = {name: expert for name, expert in self.items() if names is None or name in names}
        for expert in experts.values():
            set_channels_last(expert, self.channels_last)
        prepared = _prepare(pixels_B3HW, source, resample, [expert.spec.preprocessing for expert in experts.values()])
        dtype = dtype or pixels_B3HW.dtype
        if self.streams and pixels_B3HW.is_cuda:
            return self._on_streams(experts, prepared, dtype)
        return {
            name: _run(name, expert, prepared[expert.spec.preprocessing], dtype) for name, expert in experts.items()
        }

    def _on_streams(
        self, experts: Mapping[str, Expert], prepared: Mapping[Preprocessing, torch.Tensor], dtype: torch.dtype
    ) -> dict[str, torch.Tensor]:
        """Every expert on a stream of its own; the caller's stream goes on when all are done."""
        current, grids, running = torch.cuda.current_stream(), {}, []
        for name, expert in experts.items():
            stream, pixels_B3HW = torch.cuda.Stream(), prepared[expert.spec.preprocessing]
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                grids[name] = _run(name, expert, pixels_B3HW, dtype)
            # The allocator gives memory back to the stream that it was taken on; the other one must be done with it.
            pixels_B3HW.record_stream(stream)
            grids[name].record_stream(current)
            running.append(stream)
        for stream in running:
            current.wait_stream(stream)
        return grids


def _prepare(
    pixels_B3HW: torch.Tensor, source: Preprocessing, resample: str, targets: Iterable[Preprocessing]
) -> dict[Preprocessing, torch.Tensor]:
    """What the experts want to see, bit for bit as `preprocess.prepare` gives it."""
    prepared, pictures = {source: pixels_B3HW}, {}
    for target in targets:
        if target in prepared:
            continue
        if source.size not in pictures:
            pictures[source.size] = picture(pixels_B3HW, source)
        if target.size not in pictures:
            pictures[target.size] = resized(pictures[source.size], target.size, resample)
        prepared[target] = normalised(pictures[target.size], target).to(pixels_B3HW.dtype)
    return prepared


def _run(name: str, expert: Expert, pixels_B3HW: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    # ZeRO-3 leaves a partitioned parameter its dtype, so this reads no shape and needs no gather.
    own_dtype = next((p.dtype for p in expert.parameters() if p.is_floating_point()), pixels_B3HW.dtype)
    memory_format = torch.channels_last if expert.channels_last else torch.preserve_format
    grid_BCHW = expert(pixels_B3HW.to(own_dtype, memory_format=memory_format))
    if grid_BCHW.ndim != 4 or grid_BCHW.shape[1] != expert.spec.channels:
        raise ValueError(
            f"expert `{name}` gave a grid of shape {tuple(grid_BCHW.shape)}; its spec says "
            f"(B, {expert.spec.channels}, h, w)"
        )
    # An expert that computes in float32 inside must not lift the tower's dtype.
    return grid_BCHW.to(dtype)
