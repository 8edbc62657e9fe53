"""What is trained: one row for each variant of the miniature study, all on the same data and language model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

EXPERTS = ("depth", "normals", "edges", "shapes")
VICUNA, BASE = ("pretrain", "finetune"), ("pretrain_base",)
"""The stages of ToVE_Vicuna, and the one of the base model."""
SCENES = 3000
"""Training scenes of every row that does not say another number."""
RATES = (0.5, 1.0, 2.0)
TRAINED_OUT = 1.5
"""Multiple of the study's steps that rows are trained for: CLIP-only and ToVE have all but stopped improving there."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant that the training scripts train."""

    id: str
    label: str
    group: str
    """`main`, `data`, `gate`, `control`, `second_base`, `captioner`, `single`, `ablation`, `world` or `ladder`."""
    stages: tuple[str, ...] = VICUNA
    """`VICUNA` or `BASE`."""
    vision_tower: str = "tove"
    encoder: str = ""
    """The base encoder, one of `encoders`; empty for the shipped CLIP."""
    fusion: Mapping[str, Any] = field(default_factory=dict)
    """Changes to the tower YAML's `fusion` block."""
    experts: tuple[str, ...] = EXPERTS
    """Which of the tower YAML's experts there are, or of `training.EXTRA_EXPERTS`."""
    options: tuple[str, ...] = ()
    """`a.b=c` for the scripts."""
    scenes: int = SCENES
    """How many training scenes, the first of the world's."""
    rate_from: str = "tove"
    """Id of the row whose learning rate it has; a row that names itself has its own chosen on validation scenes."""
    rates: tuple[float, ...] = RATES
    """Multiples of the YAML's learning rates that a row which names itself chooses from."""
    budgets: tuple[float, ...] = (TRAINED_OUT,)
    """Multiples of the study's steps; where there are several, the best on validation scenes is taken."""
    against: str = "tove"
    """Id of the row that it is compared with."""

    @property
    def has_choice(self) -> bool:
        """Whether something of it is chosen on validation scenes."""
        return self.rate_from == self.id or len(self.budgets) > 1


def clip_only(row_id: str = "clip", label: str = "CLIP-only", group: str = "main", **more) -> Row:
    """The baseline: the same model with the tower's own CLIP, and a projector alone to train in stage 1."""
    return Row(id=row_id, label=label, group=group, vision_tower="clip", **{"rate_from": "clip", **more})


def _data_row(tower: str, scenes: int, budgets: tuple[float, ...]) -> Row:
    label = f"{'CLIP-only' if tower == 'clip' else 'ToVE'}, {scenes:,} scenes"
    more: dict[str, Any] = {"group": "data", "scenes": scenes, "budgets": budgets}
    row_id = data_id(tower, scenes)
    return clip_only(row_id, label, **more) if tower == "clip" else Row(id=row_id, label=label, **more)


def data_id(tower: str, scenes: int) -> str:
    """Id of the row of `clip` or `tove` with so many training scenes."""
    return tower if scenes == SCENES else f"{tower}_{scenes}"


MAIN = [clip_only(), Row(id="tove", label="ToVE, all experts", group="main")]
# Few scenes are learned by heart in few steps, many need more of them.
CLIP_SCENES = {1000: (0.5, 1.0), SCENES: (TRAINED_OUT,), 10_000: (1.5, 2.5), 30_000: (2.0, 3.0)}
TOVE_SCENES = {30: (0.25, 0.5), 100: (0.25, 0.5), 300: (0.5, 1.0), 1000: (0.5, 1.0), SCENES: (TRAINED_OUT,)}
DATA = [
    _data_row(tower, scenes, budgets)
    for tower, axis in (("tove", TOVE_SCENES), ("clip", CLIP_SCENES))
    for scenes, budgets in axis.items()
    if scenes != SCENES
]
GATE = [
    Row(
        id=f"gate_{gate}",
        label=label,
        group="gate",
        fusion={"gate": gate},
        rate_from="gate_constant",
    )
    for gate, label in (
        ("constant", "constant gate"),
        ("shuffled", "gate reads shuffled tokens"),
        ("image", "one choice for the whole picture"),
        ("token_and_expert", "gate reads the experts' tokens too"),
    )
]
MATCHED = Row(
    id="matched",
    label="CLIP, as many trainable parameters",
    group="control",
    experts=("own_tokens",),
    fusion={"mlp_hidden": "matched"},
    rate_from="matched",
)
CONTROLS = [
    Row(id="concat", label="channel concatenation", group="control", fusion={"kind": "concat"}, rate_from="concat"),
    MATCHED,
    Row(
        id="separate",
        label="ToVE, each expert with a second layer of its own",
        group="control",
        fusion={"transfer": "separate"},
        rate_from="separate",
    ),
]
SECOND_BASE = [
    replace(
        row,
        id=f"rich_{row.id}",
        label=f"{row.label}, CLIP with richer captions",
        group="second_base",
        encoder="rich_clip",
        rate_from=f"rich_{row.id}",
        against="rich_tove",
    )
    for row in (*MAIN, CONTROLS[0])
]
CAPTION = "caption_"
CAPTIONER = [
    replace(
        row,
        id=f"{CAPTION}{row.id}",
        label=f"{row.label}, captioner",
        group="captioner",
        stages=BASE,
        rate_from=f"{CAPTION}{row.rate_from}",
        against=f"{CAPTION}tove",
    )
    for row in (*MAIN, *DATA)
]
"""The data axis again with the base model, zero-shot captions."""
SINGLE = [
    Row(
        id=f"only_{name}",
        label=f"ToVE, {name} alone",
        group="single",
        experts=(name,),
        rate_from=f"only_{EXPERTS[0]}",
    )
    for name in EXPERTS
]
_ABLATED: dict[str, Any] = {"group": "ablation", "rate_from": "no_dropout"}
ABLATIONS = [
    Row(id="no_dropout", label="without expert dropout", fusion={"expert_dropout": 0.0}, **_ABLATED),
    Row(id="no_balance", label="without balance loss", options=("train.balance_loss_weight=0.0",), **_ABLATED),
    Row(id="no_zero_start", label="without zero start", fusion={"zero_init": False}, **_ABLATED),
]
# A world where tokens need different experts: depth, but each of the two is right on one side of the picture only.
_SPLIT: dict[str, Any] = {"group": "world", "experts": ("depth_left", "depth_right"), "rate_from": "split_tokens"}
WORLD = [
    Row(id="split_tokens", label="two half-blind depth experts", **_SPLIT),
    Row(
        id="split_constant",
        label="two half-blind depth experts, constant gate",
        fusion={"gate": "constant"},
        **_SPLIT,
    ),
]
FULL = [*MAIN, *DATA, *CAPTIONER, *GATE, *CONTROLS, *SECOND_BASE, *SINGLE, *ABLATIONS, *WORLD]
QUICK_SCENES = 1200
QUICK = [
    replace(MAIN[0], scenes=QUICK_SCENES, rates=(1.0,), budgets=(1.0,)),
    replace(MAIN[1], scenes=QUICK_SCENES, rates=(1.0, 2.0), budgets=(1.0,)),
    replace(GATE[0], scenes=QUICK_SCENES, rate_from="tove", budgets=(1.0,)),
    _data_row("tove", 100, (0.25, 0.5)),
]
