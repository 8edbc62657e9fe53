"""Figures of the gate ladder: how well each gate answers, and where a gate changes hands in a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tove_lvlm.viz import palette
from tove_lvlm.viz.style import SMALL, new_figure, save_figure, tidy

SHOWN = "within_picture/unrelated/token"
"""The row whose gate is shown in pictures."""
NUM_PICTURES = 4
ORDER = ("whole", "token", "token_and_expert", "image", "constant", "shuffled", "concat")


def ladder_figure(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """`gate_ladder.svg` and `.png`: depth questions by gate, a panel for each place and kind of wrong; none if empty.

    Args:
        results: What `gate_ladder.json` holds.
        folder: Where.
    """
    panels = [
        (where, wrong, cells)
        for where in ("within_picture", "between_pictures")
        for wrong, cells in results[where].items()
        if any(gate != "whole" for gate in cells)
    ]
    if not panels:
        return []
    figure = new_figure(8, 0.9 + 2.1 * -(-len(panels) // 2))
    figure.suptitle("depth questions, % right, and the gate's mass on the right expert, %", x=0.01, ha="left",
                    fontsize=SMALL, color=palette.SOFT)  # fmt: skip
    grid = figure.subplots(-(-len(panels) // 2), 2, squeeze=False)
    low = min(cell["depth_range"][0] for _, _, cells in panels for cell in cells.values())
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (where, wrong, cells) in zip(grid.flat, panels, strict=False):
        gates = [gate for gate in ORDER if gate in cells]
        tidy(axes, f"{where.replace('_', ' ')}, {wrong} answers", grid="x")
        for at, gate in enumerate(gates):
            cell = cells[gate]
            color = palette.MODELS["tove"] if gate.startswith("token") else palette.SOFT
            axes.plot([low - 1, cell["depth"]], [at, at], color=color, linewidth=1, alpha=0.45, zorder=1)
            axes.plot(cell["depth_range"], [at, at], color=color, linewidth=3, alpha=0.45, zorder=1)
            axes.plot(cell["depth"], at, "o", color=color, markersize=5)
            mass = f", mass {cell['mass_right']:.0f}" if "mass_right" in cell else ""
            axes.annotate(f"{cell['depth']:.1f}{mass}", (1, at), xycoords=("axes fraction", "data"), va="center",
                          xytext=(4, 0), textcoords="offset points", fontsize=SMALL, color=palette.INK)  # fmt: skip
        axes.set(ylim=(len(gates) - 0.5, -0.5), yticks=range(len(gates)), yticklabels=gates, xlim=(low - 1, 100))
    return save_figure(figure, folder / "gate_ladder")


def gate_pictures(model: Path, world: Path, folder: Path) -> list[Path]:
    """`gate_ladder_pictures.svg` and `.png`: the first held-out pictures with the trained gate over them.

    Args:
        model: A trained row.
        world: Folder with `heldout/`.
        folder: Where.
    """
    from tove_lvlm.checkpoints import open_checkpoint
    from tove_lvlm.viz.gates import gates_of_images
    from tove_lvlm.viz.gates_plot import common_scale, gate_page

    images = sorted((world / "heldout" / "images").glob("*.png"))[:NUM_PICTURES]
    gates = list(gates_of_images(open_checkpoint(model), images))
    figure = gate_page(gates, [f"held-out picture {index}" for index in range(len(images))], common_scale(gates))
    return save_figure(figure, folder / "gate_ladder_pictures")
