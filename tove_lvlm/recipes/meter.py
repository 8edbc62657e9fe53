"""Running sums between two log lines: gate mass and entropy, balance loss, throughput, memory.

B images, N tokens, K experts.

See docs/design.md, "Training".
"""

import time
from collections.abc import Sequence
from typing import Any

import torch

from .. import dist
from ..tower.gate_statistics import entropy, mass
from ..train.metrics import peak_memory_bytes


class Meter:
    """Sums over the micro-batches of this rank since the last log line.

    Args:
        expert_names: Names of the tower's experts, none for a plain CLIP.
    """

    def __init__(self, expert_names: Sequence[str]):
        self.expert_names = list(expert_names)
        self.reset()

    def reset(self) -> None:
        """Start anew after a log line."""
        self.mass_K = torch.zeros(len(self.expert_names), dtype=torch.float64)
        # gate entropy, real images weighed, balance loss, micro-batches, images, tokens
        self.sums = torch.zeros(6, dtype=torch.float64)
        self.started = time.perf_counter()

    @torch.no_grad()
    def add(self, inputs: dict[str, torch.Tensor], tower_output: Any | None) -> None:
        """Count a micro-batch.

        Args:
            inputs: The batch as the model gets it.
            tower_output: The tower's output with `gate_probs` (B, N, K) and `balance_loss`; none for a plain CLIP.
        """
        real_B = inputs["pixel_values"].flatten(1).ne(0).any(dim=1)
        counts = [real_B.sum(), inputs["attention_mask"].sum()]
        gate = [torch.zeros(()), torch.zeros(()), torch.zeros(())]
        if tower_output is not None:
            g_BNK = tower_output.gate_probs.detach().float()
            weight_B = real_B.to(g_BNK.dtype)
            entropy_B = entropy(g_BNK)
            self.mass_K += (mass(g_BNK) * weight_B[:, None]).sum(dim=0).double().cpu()
            gate = [(entropy_B * weight_B).sum(), weight_B.sum(), tower_output.balance_loss.detach()]
        values = [*gate, torch.ones(()), *counts]
        self.sums += torch.stack([value.double().cpu() for value in values])

    def read(self, device: torch.device) -> dict[str, float]:
        """The figures over all ranks since the last reset; every rank must call.

        Args:
            device: Where the process group reduces.
        """
        seconds = max(time.perf_counter() - self.started, 1e-9)
        total = dist.all_reduce_sum(torch.cat([self.sums, self.mass_K]).float().to(device)).double().cpu()
        entropy_sum, weight, balance, batches, images, tokens = total[:6].tolist()
        out = {"images_per_s": images / seconds, "tokens_per_s": tokens / seconds}
        if self.expert_names:
            weight = max(weight, 1e-9)
            out["balance_loss"] = balance / max(batches, 1.0)
            out["gate_entropy"] = entropy_sum / weight
            for name, mass_sum in zip(self.expert_names, total[6:].tolist(), strict=True):
                out[f"gate_mass/{name}"] = mass_sum / weight
        out["peak_memory_gb"] = peak_memory_bytes() / 1e9
        return out

    def state(self) -> dict[str, torch.Tensor]:
        """The sums for a checkpoint, so that a resumed run logs what an uninterrupted one would."""
        return {"mass_K": self.mass_K.clone(), "sums": self.sums.clone()}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take up the sums of a checkpoint."""
        self.mass_K, self.sums = state["mass_K"].clone(), state["sums"].clone()
