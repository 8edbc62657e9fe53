"""`train.gate_panels_steps` of LLaVA's stages and the base model: the gate over the same few pictures as it learns, as
`tove gates` draws it, among tensorboard's images.

See docs/design.md, "Training".
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config.loop import LoopConfig
from ..data.errors import DataError
from ..data.images import read_image, to_pixels
from ..data.pixel_table import PixelTable
from ..data.record_dataset import RecordDataset
from ..errors import UserError
from ..registry import require
from ..tower.modeling import ToVEVisionModel
from ..train.stage import Pictures
from ..viz.gates import gate_problem, read_gates
from ..viz.gates_plot import common_scale, gate_panel
from ..viz.style import rendered

NUM_PICTURES = 4
"""Training pictures that are drawn where none are named."""
_DPI = 100


def gate_pictures(
    train: LoopConfig,
    tower: Any,
    datasets: Sequence[RecordDataset[Any]],
    table: PixelTable | None = None,
    after: Callable[[], None] | None = None,
) -> Pictures | None:
    """What a run draws; none where `train.gate_panels_steps` is 0.

    Args:
        train: The block.
        tower: The model's vision tower, as it is trained.
        datasets: Of the run; the pictures come from the first ones, or go through the first one's image processor.
        table: What pixels that come as bytes stand for.
        after: Called when the tower was run.

    Raises:
        UserError: There is no gate, or no picture.
        DataError: A named picture cannot be read.
        ImportError: matplotlib or tensorboard is absent; names the extra.
    """
    if not train.gate_panels_steps:
        return None
    require("matplotlib.figure", extra="viz")
    require("tensorboard", extra="train")
    problem = gate_problem(tower if isinstance(tower, ToVEVisionModel) else None)
    if problem is not None:
        raise UserError(f"`train.gate_panels_steps` draws the gate, and {problem}; leave it out")
    named = train.gate_panels_images
    pictures = [_of_file(path, datasets[0]) for path in named] or list(_first(datasets))
    if not pictures:
        raise UserError("`train.gate_panels_steps`: no training sample has an image; name some in gate_panels_images")
    titles = [title for title, _ in pictures]
    pixels_B3HW = torch.stack([pixels if table is None else table(pixels[None])[0] for _, pixels in pictures])

    def draw() -> dict[str, np.ndarray]:
        drawn = _panels(tower, titles, pixels_B3HW)
        if after is not None:
            after()
        return drawn

    return Pictures(every=train.gate_panels_steps, draw=draw)


def _panels(tower: ToVEVisionModel, titles: Sequence[str], pixels_B3HW: torch.Tensor) -> dict[str, np.ndarray]:
    """Name among tensorboard's images -> panel, (H, W, 3) uint8. Nothing is read from the tower's cache or put there,
    and nothing is compiled for this batch."""
    cache, tower.feature_cache = tower.feature_cache, None
    try:
        with torch.compiler.set_stance("force_eager"):
            gates = read_gates(tower, pixels_B3HW.to(next(tower.parameters())))
    finally:
        tower.feature_cache = cache
    scale = common_scale(gates)
    return {
        f"gate/{number}_{title}": rendered(gate_panel(one, title, scale), _DPI)
        for number, (title, one) in enumerate(zip(titles, gates, strict=True))
    }


def _of_file(path: str, dataset: RecordDataset[Any]) -> tuple[str, torch.Tensor]:
    """Name and pixels, (3, H, W), of a file, prepared as the data set prepares its own."""
    try:
        picture = read_image(path, apply_exif=True)  # as `tove gates`: it is shown to people
        pixels = to_pixels(picture, dataset.image_processor, dataset.image_aspect_ratio, as_bytes=dataset.as_bytes)
    except DataError as error:
        raise error.at(file=path) from error
    return Path(path).name, pixels


def _first(datasets: Sequence[RecordDataset[Any]]) -> list[tuple[str, torch.Tensor]]:
    """Names and pixels of the first pictures that can be read."""
    found: list[tuple[str, torch.Tensor]] = []
    for dataset in datasets:
        for index in dataset.records.has_image.nonzero()[0].tolist():
            if len(found) == NUM_PICTURES:
                return found
            try:
                pixels = dataset.pixels(index)
            except DataError:
                if dataset.on_error == "raise":
                    raise
                continue
            found.append((Path(dataset.records[index].images[0].name).name, pixels))
    return found
