"""The token-aware gate: how much every token takes from each expert.

    g = softmax(G(t_clip) / temperature), logits of detached experts at -inf; G: LayerNorm, a small MLP (our choice)
    logit_k = fc2_k(gelu(fc1(LN(t_clip)) [+ fc_expert(LN(e_k)) where it reads the experts' tokens too]))

Shapes: B images, N tokens, D width, K experts.

See docs/design.md, "Gate".
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from .init import FAN_IN, ZERO, set_init


class GateOutput(NamedTuple):
    """Probabilities, float32."""

    probs_BNK: torch.Tensor
    """What the experts are weighted with."""
    full_probs_BNK: torch.Tensor
    """The same before expert dropout; the balance loss shapes the gate, not the mask."""


class Gate(nn.Module):
    """Gate over K experts.

    Args:
        width: D.
        num_experts: K.
        hidden: Width of the hidden layer.
        temperature: Divides the logits.
        noise: Standard deviation of Gaussian noise on the logits, in training only.
        expert_dropout: Probability that an expert is masked for an image, in training only. Where all would be
            masked, none is.
        gate: What it reads, see `FusionConfig.gate`.
    """

    def __init__(
        self,
        width: int,
        num_experts: int,
        hidden: int,
        temperature: float = 1.0,
        noise: float = 0.0,
        expert_dropout: float = 0.0,
        gate: str = "token",
    ):
        super().__init__()
        self.temperature, self.noise, self.expert_dropout = temperature, noise, expert_dropout
        self.gate = gate
        self.norm = nn.LayerNorm(width)
        self.fc1 = set_init(nn.Linear(width, hidden), FAN_IN)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, num_experts)
        self.norm_expert: nn.LayerNorm | None = None
        self.fc_expert: nn.Linear | None = None
        if gate == "token_and_expert":
            self.norm_expert = nn.LayerNorm(width)
            self.fc_expert = set_init(nn.Linear(width, hidden, bias=False), ZERO)

    def forward(
        self,
        t_clip_BND: torch.Tensor,
        attached_K: list[bool],
        e_KBND: Sequence[torch.Tensor | None] = (),
        fixed_K: Sequence[bool] = (),
    ) -> GateOutput:
        """Probabilities for each token.

        Args:
            t_clip_BND: CLIP's tokens.
            attached_K: Which experts take part; the others get exactly 0. Without any, all are 0.
            e_KBND: The experts' tokens after their transfers, None of a detached one; for `token_and_expert` alone,
                which reads them without sending a gradient back.
            fixed_K: Experts that are not run and keep their share, which is not given out (0 in the output): what
                stands in their place is added by the caller. Expert dropout leaves them.
        """
        fixed = [k for k, is_fixed in enumerate(fixed_K) if is_fixed]
        logits_BNK = self._logits(t_clip_BND, e_KBND).float() / self.temperature
        detached = [k for k, attached in enumerate(attached_K) if not attached and k not in fixed]
        if not any(attached_K):
            nothing_BNK = torch.zeros_like(logits_BNK)
            return GateOutput(nothing_BNK, nothing_BNK)
        if self.training and self.noise > 0:
            logits_BNK = logits_BNK + self.noise * torch.randn_like(logits_BNK)
        if detached:
            logits_BNK = logits_BNK.clone()
            for k in detached:
                logits_BNK[..., k] = float("-inf")
        full_probs_BNK = _without(logits_BNK.softmax(-1), fixed)
        if not (self.training and self.expert_dropout > 0):
            return GateOutput(full_probs_BNK, full_probs_BNK)
        keep_BK = torch.rand(len(logits_BNK), len(attached_K), device=logits_BNK.device) >= self.expert_dropout
        attached_BK = torch.ones_like(keep_BK)
        for k in (*detached, *fixed):
            keep_BK[:, k] = attached_BK[:, k] = False
        keep_BK = torch.where(keep_BK.any(-1, keepdim=True), keep_BK, attached_BK)
        for k in fixed:
            keep_BK[:, k] = True
        probs_BNK = logits_BNK.masked_fill(~keep_BK[:, None], float("-inf")).softmax(-1)
        return GateOutput(_without(probs_BNK, fixed), full_probs_BNK)

    def _logits(self, t_clip_BND: torch.Tensor, e_KBND: Sequence[torch.Tensor | None]) -> torch.Tensor:
        read_BNH = self.fc1(self.norm(self._read(t_clip_BND)))
        logits_BNK: torch.Tensor = self.fc2(self.act(read_BNH))
        if self.norm_expert is None or self.fc_expert is None:
            return logits_BNK
        columns = []
        for k, e_BND in enumerate(e_KBND):
            if e_BND is not None:
                seen_BNH = self.fc_expert(self.norm_expert(e_BND.detach().to(t_clip_BND.dtype)))
                columns.append(self.fc2(self.act(read_BNH + seen_BNH))[..., k])
            else:
                columns.append(logits_BNK[..., k])
        return torch.stack(columns, dim=-1)

    def _read(self, t_clip_BND: torch.Tensor) -> torch.Tensor:
        if self.gate == "constant":
            return torch.zeros_like(t_clip_BND)
        if self.gate == "image":
            return t_clip_BND.mean(1, keepdim=True).expand_as(t_clip_BND)
        if self.gate == "shuffled":
            # Another order at every training step, or the places could be learnt; always the same one afterwards.
            generator = None if self.training else torch.Generator().manual_seed(0)
            return t_clip_BND[:, torch.randperm(t_clip_BND.shape[1], generator=generator).to(t_clip_BND.device)]
        return t_clip_BND


def _without(probs_BNK: torch.Tensor, fixed: list[int]) -> torch.Tensor:
    if fixed:
        probs_BNK = probs_BNK.clone()
        for k in fixed:
            probs_BNK[..., k] = 0
    return probs_BNK
