"""`tove_fusion`: everything that is trained in the tower, as one module.

    t_fuse = t_clip + sum_k g_k * e_k,    e_k = scale * rms(t_clip) * transfer_k(grid_k)

or, of a detached expert, its mean term in place of g_k e_k: one vector for every token, the others' shares as before.

The transfers speak in units of the token that they are added to (our choice): how fast they become heard in training
then does not hang on how large a CLIP's features happen to be.

One call with one positional tensor first, so that a wrapper (peft's `modules_to_save`) can stand in for it; its
parameters are never reached from outside.

Shapes: B images, N tokens, D width, K experts, C h w an expert's grid.

See docs/design.md, "Transfer".
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn

from ..config.tower import FusionConfig
from ..errors import ConfigError
from ..experts import ExpertSpec
from .gate import Gate
from .init import init_weights
from .losses import balance_loss
from .output import FusionOutput
from .transfer import Transfer, out_layer


class ToVEFusion(nn.Module):
    """Gate and residual knowledge transfer of all K experts, attached or not.

    Args:
        specs: The experts, in the order of the gate's columns.
        width: D.
        side: Tokens along a side.
        settings: Sizes and switches.
        mean_terms: Detached experts whose mean term stands in their place.

    Raises:
        ConfigError: One transfer for all is asked for, and the experts' outputs are not alike.
    """

    def __init__(
        self,
        specs: Sequence[ExpertSpec],
        width: int,
        side: int,
        settings: FusionConfig,
        mean_terms: Sequence[str] = (),
    ):
        super().__init__()
        self.names = [spec.name for spec in specs]
        self.scale = settings.transfer_scale
        self.gate: Gate | None = None
        if specs:
            self.gate = Gate(
                width,
                len(specs),
                hidden=settings.gate_hidden or max(1, width // 4),
                temperature=settings.temperature,
                noise=settings.gate_noise,
                expert_dropout=settings.expert_dropout,
                gate=settings.gate,
            )
        hidden, shares_out = settings.mlp_hidden or width, settings.transfer == "shared_out"

        def transfer(spec: ExpertSpec) -> Transfer:
            return Transfer(
                spec,
                side=side,
                width=width,
                hidden=hidden,
                stem_width=settings.stem_width,
                zero_init=settings.zero_init,
                has_out=not shares_out,
            )

        self.shared_transfer: Transfer | None = None
        if settings.transfer == "shared" and specs:
            check_alike(specs)
            self.shared_transfer = transfer(specs[0])
        own = specs if self.shared_transfer is None else []
        self.transfers = nn.ModuleDict({spec.name: transfer(spec) for spec in own})
        self.shared_out = out_layer(hidden, width, settings.zero_init) if shares_out and specs else None
        self.mean_terms = nn.ParameterDict({name: nn.Parameter(torch.zeros(width)) for name in mean_terms})
        self.apply(init_weights)

    def forward(
        self,
        t_clip_BND: torch.Tensor,
        grids: Mapping[str, torch.Tensor],
        weight_B: torch.Tensor,
        mean_terms: Mapping[str, torch.Tensor] | None = None,
    ) -> FusionOutput:
        """Enrich CLIP's tokens.

        Args:
            t_clip_BND: CLIP's tokens; returned as they are when no expert is attached.
            grids: The attached experts' grids by name, (B, C, h, w) each.
            weight_B: 1 for an image that counts in the balance loss, 0 for a dummy.
            mean_terms: Further mean terms than its own, (D,) each, for experts without a grid: to try them.
        """
        attached_K = [name in grids for name in self.names]
        if self.gate is None or not any(attached_K):
            empty_BNK = t_clip_BND.new_zeros(*t_clip_BND.shape[:2], len(self.names), dtype=torch.float32)
            return FusionOutput(t_clip_BND, empty_BNK, empty_BNK.new_zeros(()))
        # The trainable part may be kept in another dtype than the frozen one (float32 masters under autocast).
        # Its norms say which, since a quantised layer's weight is of integers.
        e = self._transferred(grids)
        every = {**self.mean_terms, **(mean_terms or {})}
        means = {name: every[name] for name in self.names if name in every and name not in grids}
        gate = self.gate(
            t_clip_BND.to(self.gate.norm.weight.dtype),
            attached_K,
            [e.get(name) for name in self.names],
            [name in means for name in self.names],
        )
        delta_BND = cast(torch.Tensor, sum(self._weighed(t_clip_BND, e, gate.probs_BNK).values()))
        for mean_D in means.values():
            delta_BND = delta_BND + mean_D.to(delta_BND.dtype)
        return FusionOutput(
            t_fuse_BND=t_clip_BND + delta_BND.to(t_clip_BND.dtype),
            gate_BNK=gate.probs_BNK,
            balance=balance_loss(gate.full_probs_BNK, weight_B, attached_K, collective=self.training),
        )

    def terms(
        self, t_clip_BND: torch.Tensor, grids: Mapping[str, torch.Tensor], gate_BNK: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """What each attached expert adds, g_k e_k, by name and in order; (B, N, D) each.

        Args:
            t_clip_BND: CLIP's tokens.
            grids: The attached experts' grids by name.
            gate_BNK: The gate's probabilities.
        """
        return self._weighed(t_clip_BND, self._transferred(grids), gate_BNK)

    def _transferred(self, grids: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What each attached expert says, e_k before its unit, by name and in order; (B, N, D) each."""
        attached = [name for name in self.names if name in grids]
        transferred = [self._transfer_of(name)(grids[name]) for name in attached]
        if self.shared_out is not None and transferred:
            # One after the other along the batch: quantised layers take three axes at most.
            transferred = list(self.shared_out(torch.cat(transferred)).chunk(len(transferred)))
        return dict(zip(attached, transferred, strict=True))

    def _transfer_of(self, name: str) -> nn.Module:
        return self.transfers[name] if self.shared_transfer is None else self.shared_transfer

    def _weighed(
        self, t_clip_BND: torch.Tensor, e: Mapping[str, torch.Tensor], gate_BNK: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        share_BNK = gate_BNK
        if self.scale is not None:
            share_BNK = gate_BNK * self.scale * t_clip_BND.float().square().mean(-1, keepdim=True).sqrt()
        return {name: share_BNK[..., self.names.index(name), None].to(e_BND.dtype) * e_BND for name, e_BND in e.items()}

    def strengths(
        self, t_clip_BND: torch.Tensor, grids: Mapping[str, torch.Tensor], gate_BNK: torch.Tensor
    ) -> torch.Tensor:
        """How long each term is against the token that it is added to, ||g_k e_k|| / ||t_clip||; (B, N, K) float32.

        Args:
            t_clip_BND: CLIP's tokens.
            grids: The attached experts' grids by name; the others get 0.
            gate_BNK: The gate's probabilities.
        """
        length_BN = t_clip_BND.float().norm(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
        found_BNK = torch.zeros_like(gate_BNK, dtype=torch.float32)
        for name, term_BND in self.terms(t_clip_BND, grids, gate_BNK).items():
            found_BNK[..., self.names.index(name)] = term_BND.float().norm(dim=-1) / length_BN
        return found_BNK


def check_alike(specs: Sequence[ExpertSpec]) -> None:
    """Whether one transfer can read all of the experts.

    Raises:
        ConfigError: Names two whose outputs differ.
    """
    first = specs[0]
    for spec in specs[1:]:
        if (spec.output, spec.channels, spec.grid) != (first.output, first.channels, first.grid):
            raise ConfigError(
                f"`fusion.transfer` is shared, but `{first.name}` gives {_output_of(first)} and `{spec.name}` "
                f"{_output_of(spec)}; one transfer reads only outputs that are alike. Expected shared_out or separate"
            )


def _output_of(spec: ExpertSpec) -> str:
    height, width = spec.grid
    return f"{'a map' if spec.output == 'map' else 'features'} of {spec.channels} x {height} x {width}"
