"""How our plots look and how they are written: no frame where an axis says enough, the same file from the same figures.

matplotlib is an optional package: it is imported inside functions, and `pyplot`, which keeps figures in a global list,
is never used.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from PIL import Image

from ..registry import require
from ..storage import atomic_file
from .palette import GRID, INK, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

TEXT, SMALL = 9, 8
"""Points. A figure 8 inches wide that is shown 800 pixels wide has letters of 11 to 12 pixels."""
DPI = 200


def new_figure(width: float, height: float) -> "Figure":
    """An empty white figure that lays itself out.

    Args:
        width: Inches.
        height: Inches.

    Raises:
        ImportError: matplotlib is absent; the message names the extra.
    """
    return require("matplotlib.figure", extra="viz").Figure(figsize=(width, height), layout="constrained")


def set_gaps(figure: "Figure", **gaps: Any) -> None:
    """Distances between the parts of a figure of `new_figure`, as its constrained layout names them."""
    cast("ConstrainedLayoutEngine", figure.get_layout_engine()).set(**gaps)


def tidy(axes: "Axes", title: str = "", grid: Literal["x", "y", "both"] | None = None) -> "Axes":
    """Take away what carries no information.

    Args:
        axes: Changed in place.
        title: Stands at the left.
        grid: Axis whose values get faint lines, `x`, `y` or `both`.
    """
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, labelsize=SMALL, colors=INK)
    axes.set_axisbelow(True)
    if grid is not None:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)
    if title:
        axes.set_title(title, loc="left", fontsize=TEXT, color=INK, fontweight="bold", parse_math=False)
    axes.xaxis.label.set(fontsize=SMALL, color=SOFT)
    axes.yaxis.label.set(fontsize=SMALL, color=SOFT)
    return axes


def spread(values: Sequence[float], least: float) -> list[float]:
    """Places for labels near `values` that keep a distance, so that no two lie over each other.

    Args:
        values: In any order; the result has the same.
        least: Smallest distance of two places.
    """
    positions = list(values)
    order = sorted(range(len(positions)), key=positions.__getitem__)
    groups: list[list[int]] = []
    for index in order:
        groups.append([index])
        # A group stands evenly around its own mean; one that touches the group below joins it.
        while len(groups) > 1 and _lowest(values, groups[-1], least) - _highest(values, groups[-2], least) < least:
            groups[-2:] = [groups[-2] + groups[-1]]
    for group in groups:
        low = _lowest(values, group, least)
        for rank, index in enumerate(group):
            positions[index] = low + rank * least
    return positions


def _lowest(values: Sequence[float], group: list[int], least: float) -> float:
    return sum(values[index] for index in group) / len(group) - least * (len(group) - 1) / 2


def _highest(values: Sequence[float], group: list[int], least: float) -> float:
    return _lowest(values, group, least) + least * (len(group) - 1)


def save_figure(
    figure: "Figure", stem: str | Path, formats: tuple[str, ...] = ("svg", "png"), dpi: int = DPI
) -> list[Path]:
    """Write a figure, each file whole or not at all; the same figure gives the same bytes.

    Args:
        figure: What is drawn.
        stem: Path without the ending.
        formats: File endings that matplotlib knows.
        dpi: Pixels per inch of a PNG.

    Returns:
        The files.
    """
    stem, files = Path(stem), []
    for kind in formats:
        file = stem.parent / f"{stem.name}.{kind}"
        with atomic_file(file) as temporary:
            _save(figure, temporary, kind, dpi)
        files.append(file)
    return files


def svg_text(figure: "Figure") -> str:
    """A figure as SVG whose texts are texts, which a page shows in its own font; the same figure gives the same text.

    Args:
        figure: What is drawn.
    """
    buffer = io.BytesIO()
    _save(figure, buffer, "svg", DPI, {"svg.fonttype": "none"})
    return buffer.getvalue().decode("utf-8")


def rendered(figure: "Figure", dpi: int) -> np.ndarray:
    """A figure as pixels, (H, W, 3) uint8.

    Args:
        figure: What is drawn.
        dpi: Pixels per inch.
    """
    buffer = io.BytesIO()
    _save(figure, buffer, "png", dpi)
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB"))


def _save(figure: "Figure", target: Path | io.BytesIO, kind: str, dpi: int, settings: Mapping[str, Any] = {}) -> None:
    matplotlib = require("matplotlib", extra="viz")
    undated = {"Date": None} if kind == "svg" else {}
    with matplotlib.rc_context({"svg.hashsalt": "tove", **settings}):
        figure.savefig(target, format=kind, dpi=dpi, facecolor="white", metadata=undated)
