"""What is trained: one row for each variant of the miniature study, all on the same data, steps and language model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EXPERTS = ("depth", "normals", "edges", "shapes")
FRACTIONS = {"1/100": 1 / 100, "1/32": 1 / 32, "1/10": 1 / 10, "1/3": 1 / 3}
"""Shares of the training scenes; the whole is the main rows' own."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant that both training scripts train."""

    id: str
    label: str
    group: str
    """`main`, `single`, `control`, `ablation`, `gate`, `world`, `data` or `ladder`."""
    vision_tower: str = "tove"
    fusion: Mapping[str, Any] = field(default_factory=dict)
    """Changes to the tower YAML's `fusion` block."""
    experts: tuple[str, ...] = EXPERTS
    """Which of the tower YAML's experts there are, or of `training.EXTRA_EXPERTS`."""
    options: tuple[str, ...] = ()
    """`a.b=c` for the scripts."""
    fraction: str = "1"
    """Share of the training scenes."""


def clip_only(row_id: str = "clip", label: str = "CLIP-only", group: str = "main", **more) -> Row:
    """The baseline: the same model with the tower's own CLIP, and a projector alone to train in stage 1."""
    return Row(id=row_id, label=label, group=group, vision_tower="clip", **more)


MAIN = [clip_only(), Row(id="tove", label="ToVE, all experts", group="main")]
SINGLE = [Row(id=f"only_{name}", label=f"ToVE, {name} alone", group="single", experts=(name,)) for name in EXPERTS]
CONTROLS = [
    Row(
        id="matched",
        label="CLIP, as many trainable parameters",
        group="control",
        experts=("own_tokens",),
        fusion={"mlp_hidden": "matched"},
    ),
    Row(id="concat", label="channel concatenation", group="control", fusion={"kind": "concat"}),
]
ABLATIONS = [
    Row(id="no_dropout", label="without expert dropout", group="ablation", fusion={"expert_dropout": 0.0}),
    Row(id="no_balance", label="without balance loss", group="ablation", options=("train.balance_loss_weight=0.0",)),
    Row(id="no_zero_start", label="without zero start", group="ablation", fusion={"zero_init": False}),
]
GATE = [
    Row(id="gate_constant", label="constant gate", group="gate", fusion={"gate": "constant"}),
    Row(id="gate_shuffled", label="gate reads shuffled tokens", group="gate", fusion={"gate": "shuffled"}),
    Row(id="gate_noise", label="gate noise 1", group="gate", fusion={"gate_noise": 1.0}),
    Row(id="gate_sharp", label="gate temperature 0.2", group="gate", fusion={"temperature": 0.2}),
]
# A world where tokens need different experts: depth, but each of the two is right on one side of the picture only.
SPLIT = ("depth_left", "depth_right")
WORLD = [
    Row(id="split_tokens", label="two half-blind depth experts", group="world", experts=SPLIT),
    Row(
        id="split_constant",
        label="two half-blind depth experts, constant gate",
        group="world",
        experts=SPLIT,
        fusion={"gate": "constant"},
    ),
    Row(
        id="split_sharp",
        label="two half-blind depth experts, gate temperature 0.05",
        group="world",
        experts=SPLIT,
        fusion={"temperature": 0.05},
    ),
]
DATA = [
    row
    for fraction in FRACTIONS
    for row in (
        clip_only(f"clip_{fraction}", f"CLIP-only, {fraction} of the data", "data", fraction=fraction),
        Row(id=f"tove_{fraction}", label=f"ToVE, {fraction} of the data", group="data", fraction=fraction),
    )
]
FULL = [*MAIN, *SINGLE, *CONTROLS, *ABLATIONS, *GATE, *WORLD, *DATA]
QUICK = [*MAIN, GATE[0]]
