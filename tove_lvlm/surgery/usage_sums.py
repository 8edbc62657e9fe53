"""Running sums of `tove usage`, and the file that lets a stopped run go on.

Shapes: I images of a batch, N tokens, D width, K experts, S sets of experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch

from .. import dist
from ..storage import WeightsError, load_json, save_json
from ..tower.fusion import ToVEFusion
from ..tower.gate_statistics import first_counts
from ..tower.modeling import ToVEVisionModel
from .probe import EncodedBatch


class Sums(dict[str, torch.Tensor]):
    """Sums over images, tokens and answers, float64 on the CPU, so that no order or number of ranks shows in them.

    `mass`, `first`, `norm`: (K,) over tokens. `counts`: images and tokens. `quality`: (S, 4) of `Probe.score_sets`.
    Of `signals.add_signals`: `answer_norm`, `first_order`, `first_order_term`: (K,); `answers`: the summed length of
    their gradient and the number of their tokens.
    """

    @classmethod
    def zeros(cls, num_experts: int, num_sets: int) -> "Sums":
        """Before the first batch."""
        of_experts = ("mass", "first", "norm", "answer_norm", "first_order", "first_order_term")
        shapes = dict.fromkeys(of_experts, (num_experts,)) | {"counts": (2,), "answers": (2,), "quality": (num_sets, 4)}
        return cls({name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()})

    def add(self, others: "Sums") -> None:
        """Add in place."""
        for name, tensor in others.items():
            self[name] += tensor

    def reduced(self) -> "Sums":
        """Sum over ranks."""
        return Sums({name: dist.all_reduce_sum(tensor) for name, tensor in self.items()})


@torch.no_grad()
def add_gate(sums: Sums, tower: ToVEVisionModel, batch: EncodedBatch) -> None:
    """Add what the gate does on one batch with every attached expert: `mass`, `first`, `norm` and `counts`.

    `norm` sums ||g_k e_k|| / ||t_clip||, how long an expert's term is against the token that it is added to. A token
    whose experts are equally probable counts for the first of them in `first`.
    """
    t_clip_IND = batch.t_clip_IND
    if not len(t_clip_IND):
        return
    weight_I = torch.ones(len(t_clip_IND), device=t_clip_IND.device)
    gate_INK = tower.tove_fusion(t_clip_IND, batch.grids, weight_I).gate_BNK
    sums["mass"] += gate_INK.double().sum((0, 1)).cpu()
    sums["counts"] += torch.tensor([gate_INK.shape[0], gate_INK.shape[0] * gate_INK.shape[1]])
    if batch.grids:
        sums["first"] += first_counts(gate_INK).cpu()
    strength_INK = cast(ToVEFusion, tower.tove_fusion).strengths(t_clip_IND, batch.grids, gate_INK)
    sums["norm"] += strength_INK.double().sum((0, 1)).cpu()


@dataclass(kw_only=True)
class State:
    """How far a run has come."""

    identity: str
    """Hash of the checkpoint, the data and the settings; a state of another identity is not taken up."""
    sums: Sums
    done: int = 0
    """Batches whose sums are in: the first so many."""
    broken: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        sums = {name: tensor.tolist() for name, tensor in self.sums.items()}
        save_json(path, {"identity": self.identity, "done": self.done, "broken": self.broken, "sums": sums})

    def load(self, path: Path) -> bool:
        """Take up what lies at `path`, if it is of the same identity and whole.

        Returns:
            Whether it was.
        """
        try:
            saved = load_json(path)
            if saved["identity"] != self.identity:
                return False
            sums = Sums({name: torch.tensor(saved["sums"][name], dtype=torch.float64) for name in self.sums})
            shapes = [tensor.shape for tensor in sums.values()]
            if shapes != [tensor.shape for tensor in self.sums.values()]:
                return False
            self.done, self.broken = int(saved["done"]), dict(saved["broken"])
        except (WeightsError, KeyError, TypeError, ValueError):
            return False
        self.sums = sums
        return True


def rank_batches(start: int, stop: int) -> Sequence[int]:
    """This rank's share of the batches from `start` to `stop`."""
    return range(start + dist.rank(), stop, dist.world_size())
