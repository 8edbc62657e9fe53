"""Cheap signals of what each expert brings: one pass forward and back over the data, whatever the number of experts.

Leave-one-out asks the language model once for each expert, and again in each round of a greedy choice. These signals
look at what the gate and the transfers do, and at the gradient of the answers' loss at the tokens that they change.
`benchmarks/miniature_study.py` measures how far each may be trusted. The first-order estimate is that of pruning by
Taylor expansion (Molchanov et al. 2017), applied to an expert's term; our choice.

Shapes: I images of a batch, N tokens, D width, K experts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch

from ..cost import eval_mode
from ..tower.fusion import ToVEFusion
from ..tower.modeling import ToVEVisionModel
from .probe import EncodedBatch, Probe
from .usage_sums import Sums, add_gate


@dataclass(kw_only=True)
class Signals:
    """Of one expert."""

    gate_mass: float
    """The gate's mean probability over all tokens."""
    relative_norm: float
    """Mean of ||g_k e_k|| / ||t_clip|| over all tokens."""
    answer_norm: float
    """The same, tokens weighted with the length of the answers' gradient at them."""
    first_order: float
    """Rise of the answers' loss to first order when the expert goes and the gate shares its mass among the others;
    nats per answer token."""
    first_order_term: float
    """The same when its term becomes zero and nothing else changes."""


def measure_signals(probe: Probe) -> dict[str, Signals]:
    """Every signal of every attached expert.

    Args:
        probe: Of a model with a gated tower, with answers.

    Returns:
        Name -> signals, in the tower's order.

    Raises:
        ValueError: There is no gate, or there are no answers.
        DataError: Too many samples or images are broken.
    """
    tower = probe.tower
    if tower is None or tower.config.fusion_settings.kind != "gated" or not probe.has_quality:
        raise ValueError("signals need a gated tower, a language model and answers")
    sums = Sums.zeros(len(tower.expert_names), 0)
    with eval_mode(probe.model):
        for batch in probe.encode(range(probe.num_batches)):
            add_gate(sums, tower, batch)
            add_signals(sums, probe, batch)
    return {name: signals_of(sums, tower.expert_names.index(name)) for name in tower.attached_names}


def signals_of(sums: Sums, expert: int) -> Signals:
    """The signals of one expert out of the sums.

    Args:
        sums: From `add_gate` and `add_signals`.
        expert: Its number among all of the tower's.
    """
    num_tokens = max(1.0, float(sums["counts"][1]))
    weight, num_answer_tokens = (float(value) or 1.0 for value in sums["answers"])
    return Signals(
        gate_mass=float(sums["mass"][expert]) / num_tokens,
        relative_norm=float(sums["norm"][expert]) / num_tokens,
        answer_norm=float(sums["answer_norm"][expert]) / weight,
        first_order=float(sums["first_order"][expert]) / num_answer_tokens,
        first_order_term=float(sums["first_order_term"][expert]) / num_answer_tokens,
    )


def add_signals(sums: Sums, probe: Probe, batch: EncodedBatch) -> None:
    """Add what the answers' gradient says of a batch: `answer_norm`, `first_order`, `first_order_term`, `answers`.

    Args:
        sums: Of `tove usage`.
        probe: Of a model with a gated tower, with answers.
        batch: Of this probe.
    """
    if not batch.rows:
        return
    tower = cast(ToVEVisionModel, probe.tower)
    gradient_IND, num_answer_tokens = probe.loss_gradient(batch)
    length_IN = gradient_IND.norm(dim=-1)
    sums["answers"] += torch.tensor([float(length_IN.double().sum()), num_answer_tokens], dtype=torch.float64)
    with torch.no_grad():
        _add_experts(sums, tower, batch, gradient_IND, length_IN)


def _add_experts(
    sums: Sums, tower: ToVEVisionModel, batch: EncodedBatch, gradient_IND: torch.Tensor, length_IN: torch.Tensor
) -> None:
    fusion = cast(ToVEFusion, tower.tove_fusion)
    weight_I = torch.ones(len(batch.t_clip_IND), device=batch.t_clip_IND.device)

    def terms_of(grids: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        gate_INK = tower.tove_fusion(batch.t_clip_IND, grids, weight_I).gate_BNK
        terms = fusion.terms(batch.t_clip_IND, grids, gate_INK)
        return {name: term_IND.float() for name, term_IND in terms.items()}, gate_INK

    terms, gate_INK = terms_of(batch.grids)
    delta_IND = total(terms, gradient_IND)
    strength_INK = fusion.strengths(batch.t_clip_IND, batch.grids, gate_INK)
    sums["answer_norm"] += (strength_INK * length_IN[..., None]).double().sum((0, 1)).cpu()
    for name in tower.attached_names:
        k = fusion.names.index(name)
        grids = {other: grid for other, grid in batch.grids.items() if other != name}
        # Of the terms, not of t_fuse: in bfloat16 the difference of two sums is mostly rounding.
        change_IND = total(terms_of(grids)[0], gradient_IND) - delta_IND
        sums["first_order"][k] += float((gradient_IND * change_IND).double().sum())
        sums["first_order_term"][k] -= float((gradient_IND * terms[name]).double().sum())


def total(terms: Mapping[str, torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """The terms' sum, zeros in the shape of `like` where there is none."""
    return sum(terms.values(), torch.zeros_like(like))
