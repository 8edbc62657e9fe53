"""Running sums between two log lines: gate mass and entropy, balance loss, throughput, memory.

Sums of what the model computes stay on its device until they are read, so that no step waits for them.

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
        # gate entropy, balance loss, gate mass of each expert
        self.gate_sums = torch.zeros(2 + len(self.expert_names), dtype=torch.float64)
        self.gate_images = self.batches = self.images = self.tokens = 0
        self.started = time.perf_counter()

    @torch.no_grad()
    def add(self, inputs: dict[str, Any], tower_output: Any | None) -> None:
        """Count a micro-batch.

        Args:
            inputs: The batch as the collator made it, with `num_images` and `num_tokens`.
            tower_output: The tower's output with `gate_probs` (B, N, K) and `balance_loss`; none for a plain CLIP.
        """
        self.batches += 1
        self.images += inputs["num_images"]
        self.tokens += inputs["num_tokens"]
        if tower_output is None:
            return
        g_BNK = tower_output.gate_probs.detach().float()
        self.gate_images += inputs["num_images"]
        real = float(inputs["num_images"] > 0)  # else the batch has an all-zero image only
        sums = [real * entropy(g_BNK).sum()[None], tower_output.balance_loss.detach()[None], real * mass(g_BNK).sum(0)]
        self.gate_sums = self.gate_sums.to(g_BNK.device) + torch.cat(sums).double()

    def read(self, device: torch.device) -> dict[str, float]:
        """The figures over all ranks since the last reset; every rank must call.

        Args:
            device: Where the process group reduces.
        """
        seconds = max(time.perf_counter() - self.started, 1e-9)
        counts = torch.tensor([self.gate_images, self.batches, self.images, self.tokens], dtype=torch.float64)
        total = dist.all_reduce_sum(torch.cat([counts.to(device), self.gate_sums.to(device)]).float()).tolist()
        gate_images, batches, images, tokens, entropy_sum, balance, *mass_K = total
        out = {"images_per_s": images / seconds, "tokens_per_s": tokens / seconds}
        if self.expert_names:
            gate_images = max(gate_images, 1e-9)
            out["balance_loss"] = balance / max(batches, 1.0)
            out["gate_entropy"] = entropy_sum / gate_images
            for name, mass_sum in zip(self.expert_names, mass_K, strict=True):
                out[f"gate_mass/{name}"] = mass_sum / gate_images
        out["peak_memory_gb"] = peak_memory_bytes() / 1e9
        return out

    def state(self) -> dict[str, torch.Tensor]:
        """The sums for a checkpoint, so that a resumed run logs what an uninterrupted one would."""
        entropy_sum, balance, *mass_K = self.gate_sums.tolist()
        sums = [entropy_sum, self.gate_images, balance, self.batches, self.images, self.tokens]
        return {
            "mass_K": torch.tensor(mass_K, dtype=torch.float64),
            "sums": torch.tensor(sums, dtype=torch.float64),
        }

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take up the sums of a checkpoint."""
        entropy_sum, gate_images, balance, *counts = state["sums"].tolist()
        self.gate_images = int(gate_images)
        self.batches, self.images, self.tokens = (int(count) for count in counts)
        self.gate_sums = torch.tensor([entropy_sum, balance, *state["mass_K"].tolist()], dtype=torch.float64)
