"""`tove gates` as pictures: a panel for each image and a page for many.

All heat maps of one command share one colour scale for probabilities and one for strengths, over experts and images.

Shapes: Y X rows and columns of the token grid, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..registry import require
from . import palette
from .gates import TokenGates
from .style import SMALL, TEXT, new_figure, set_gaps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

CELL = 1.62
"""Side of one picture on a panel, in inches."""
SMALL_CELL = 1.0
"""The same on a page."""
_BAR = 0.06
"""Width of a colour bar beside a cell of width 1."""
_OPACITY, _PALE = 0.72, 0.6
"""Of the heat over the picture; how far the picture is lifted from black, lest dark things look like low values."""


@dataclass(frozen=True)
class Scale:
    """What the darkest and the brightest colour stand for."""

    gate: tuple[float, float]
    strength: tuple[float, float]


def common_scale(gates: Sequence[TokenGates]) -> Scale:
    """One scale for all experts of all images: probabilities from the least to the most, strengths from zero.

    Args:
        gates: At least one.
    """
    attached = [[name in image_gates.maps for name in image_gates.names] for image_gates in gates]
    parts = [image_gates.gate_KYX[rows] for image_gates, rows in zip(gates, attached, strict=True) if any(rows)]
    low = min((float(part.min()) for part in parts), default=0.0)
    high = max((float(part.max()) for part in parts), default=1.0)
    strongest = max(float(image_gates.strength_KYX.max()) for image_gates in gates)
    # An even gate has no range of its own; a tower at its start adds nothing yet.
    return Scale(gate=(low, high) if high - low > 1e-3 else (0.0, 1.0), strength=(0.0, strongest or 1.0))


def gate_panel(gates: TokenGates, title: str, scale: Scale) -> "Figure":
    """One image: what each expert sees, where the gate asks it, and how much it really adds.

    Args:
        gates: The image's.
        title: Over all.
        scale: From `common_scale`.
    """
    names, colors = gates.names, palette.expert_colors(gates.names)
    num_columns = len(names) + 1
    figure = new_figure(CELL * num_columns + 0.75, CELL * 3 + 1.4)
    set_gaps(figure, w_pad=0.03, h_pad=0.05, wspace=0.01, hspace=0.02)
    rows = figure.subplots(3, num_columns + 1, width_ratios=[1] * num_columns + [_BAR])
    rows[0, -1].set_axis_off()
    figure.suptitle(title, x=0.01, ha="left", fontsize=TEXT + 1, color=palette.INK, parse_math=False)
    _show(rows[0, 0], gates.picture_HW3, "the picture")
    _show_owner(rows[1, 0], gates, gates.first_YX, colors, "first by gate")
    _show_owner(rows[2, 0], gates, gates.strongest_YX, colors, "first by strength")
    mass, share, strength, heat = gates.gate_mass(), gates.first_share(), gates.strength(), {}
    for index, name in enumerate(names):
        column = rows[:, index + 1]
        if name in gates.maps:
            _show(column[0], gates.maps[name], "")
            heat["gate"] = _show_heat(column[1], gates, gates.gate_KYX[index], scale.gate)
            heat["strength"] = _show_heat(column[2], gates, gates.strength_KYX[index], scale.strength)
            _set_title(column[1], f"gate {mass[name]:.3f}, first {share[name]:.0%}")
            _set_title(column[2], f"strength {strength[name]:.3f}")
        else:
            for axes in column:
                _show_detached(axes)
        _set_title(column[0], name, color=colors[name], fontsize=TEXT, fontweight="bold")
    for axes, label in zip(rows[1:, -1], ("gate", "strength"), strict=True):
        if label in heat:
            _fill_bar(figure, heat[label], axes, label, len(gates.maps))
        else:
            axes.set_axis_off()
    notes = [f"{', '.join(gates.features)}: features, shown as their first three principal components"]
    _add_legend(figure, gates, colors, notes if gates.features else [])
    return figure


def gate_page(gates: Sequence[TokenGates], titles: Sequence[str], scale: Scale) -> "Figure":
    """Many images, a row each: the picture, who is first by gate and by strength, the gate's heat maps.

    Args:
        gates: At least one, all of one tower.
        titles: One for each.
        scale: From `common_scale`.
    """
    names, colors = gates[0].names, palette.expert_colors(gates[0].names)
    num_columns = len(names) + 3
    figure = new_figure(SMALL_CELL * num_columns + 0.75, (SMALL_CELL + 0.22) * len(gates) + 0.8)
    set_gaps(figure, w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    rows = figure.subplots(len(gates), num_columns + 1, squeeze=False, width_ratios=[1] * num_columns + [_BAR])
    heat = None
    for number, (row, image_gates, title) in enumerate(zip(rows, gates, titles, strict=True)):
        _show(row[0], image_gates.picture_HW3, "")
        row[0].set_title(title, fontsize=SMALL - 1, color=palette.SOFT, loc="left", parse_math=False)
        _show_owner(row[1], image_gates, image_gates.first_YX, colors, "" if number else "first\nby gate")
        _show_owner(row[2], image_gates, image_gates.strongest_YX, colors, "" if number else "first\nby strength")
        mass = image_gates.gate_mass()
        for index, name in enumerate(names):
            axes, head = row[index + 3], {"color": colors[name], "fontweight": "bold"}
            if name in image_gates.maps:
                heat = _show_heat(axes, image_gates, image_gates.gate_KYX[index], scale.gate)
            else:
                _show_detached(axes)
            figures = f"{mass[name]:.3f}" if name in image_gates.maps else ""
            _set_title(axes, figures if number else f"{name}\n{figures}", **({} if number else head))
        row[-1].set_axis_off()
    if heat is not None:
        rows[0, -1].set_axis_on()
        _fill_bar(figure, heat, rows[0, -1], "gate", len(gates[0].maps))
    _add_legend(figure, gates[0], colors, [])
    return figure


def _set_title(axes: "Axes", text: str, **changes: Any) -> None:
    settings: dict[str, Any] = {"fontsize": SMALL, "color": palette.SOFT, "parse_math": False}
    axes.set_title(text, **settings | changes)


def heat_picture(gates: TokenGates, values_YX: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Values over a picture, whose colours are taken away so that a colour means one thing.

    Args:
        gates: The picture's.
        values_YX: One for each token.
        limits: What the darkest and the brightest colour stand for.

    Returns:
        (H, W, 3) uint8.
    """
    gray_HW = gates.picture_HW3 @ np.array([0.299, 0.587, 0.114])
    gray_HW = (gray_HW - gray_HW.min()) / max(np.ptp(gray_HW), 1.0)
    pale_HW1 = ((gray_HW + _PALE) / (1 + _PALE))[..., None]
    heat_YX3 = heat_scale(limits).to_rgba(values_YX)[..., :3]
    rows, columns = (np.arange(n) * m // n for n, m in zip(gray_HW.shape, values_YX.shape, strict=True))
    mixed_HW3 = (1 - _OPACITY) * pale_HW1 + _OPACITY * heat_YX3[rows][:, columns]
    return np.asarray(np.rint(255 * mixed_HW3), dtype=np.uint8)


def heat_scale(limits: tuple[float, float]) -> "ScalarMappable":
    """Colours of values between two limits, for a colour bar."""
    cm, colors = (require(f"matplotlib.{name}", extra="viz") for name in ("cm", "colors"))
    scale: ScalarMappable = cm.ScalarMappable(colors.Normalize(*limits), palette.HEAT)
    return scale


def _show(axes: "Axes", picture_HW3: np.ndarray, title: str) -> None:
    axes.imshow(picture_HW3, extent=(0, 1, 1, 0), interpolation="nearest")
    axes.set_axis_off()
    _set_title(axes, title)


def _show_heat(axes: "Axes", gates: TokenGates, values_YX: np.ndarray, limits: tuple[float, float]) -> "ScalarMappable":
    """`heat_picture` that fills its axes; gives what a colour bar is made of."""
    _show(axes, heat_picture(gates, values_YX, limits), "")
    return heat_scale(limits)


def _show_owner(axes: "Axes", gates: TokenGates, owner_YX: np.ndarray, colors: dict[str, str], title: str) -> None:
    from matplotlib.colors import to_rgb

    # The last colour is what index -1, nobody, finds.
    table = np.array([to_rgb(colors[name]) for name in gates.names] + [to_rgb(palette.GRID)])
    axes.imshow(table[owner_YX], extent=(0, 1, 1, 0), interpolation="nearest")
    axes.set_axis_off()
    _set_title(axes, title)


def _show_detached(axes: "Axes") -> None:
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect="equal")
    axes.set_facecolor("#f6f6f6")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.text(0.5, 0.5, "detached", ha="center", va="center", fontsize=SMALL, color=palette.SOFT, style="italic")


def _fill_bar(figure: "Figure", image: "ScalarMappable", axes: "Axes", label: str, num_attached: int) -> None:
    """A colour bar with its ends as ticks and, for the gate, what every expert would have if nothing mattered."""
    bar: Any = figure.colorbar(image, cax=axes)  # matplotlib's stubs leave out its ends
    low, high, even = bar.vmin, bar.vmax, 1 / num_attached
    ticks = {low: f"{low:.2f}", high: f"{high:.2f}"}
    if label == "gate" and low < even < high:
        ticks = {at: text for at, text in ticks.items() if abs(at - even) > 0.08 * (high - low)}
        ticks[even] = f"{even:.2f} even"
        bar.ax.axhline(even, color="white", linewidth=1.2)
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=SMALL - 1, colors=palette.SOFT)
    bar.ax.set_title(label, fontsize=SMALL, color=palette.SOFT, loc="left")


def _add_legend(figure: "Figure", gates: TokenGates, colors: dict[str, str], notes: list[str]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=colors[name], label=name) for name in gates.names if name in gates.maps]
    if not patches:
        return
    notes = ["strength: ||g e|| / ||t_clip||, what an expert adds to a token in relation to the token", *notes]
    figure.legend(
        handles=patches, loc="outside lower left", ncols=len(patches), frameon=False, fontsize=SMALL, handlelength=1,
        handleheight=1, labelcolor=palette.INK, title="\n".join(notes), title_fontsize=SMALL - 1, alignment="left",
    ).get_title().set_color(palette.SOFT)  # fmt: skip
