"""What can stand in a detached expert's place: the mean of what it adds to a token.

    m_k = E[g_k e_k],  over all tokens of the images

The other experts' shares then stay what they were, so that the token's length changes less than where they share the
mass of the one that is gone. Our choice; measured in docs/results.md, "Who should be detached".

Shapes: I images of a batch, N tokens, D width, K experts.
"""

import torch

from ..cost import eval_mode
from ..tower.fusion import ToVEFusion
from .probe import Probe, Progress


@torch.no_grad()
def measure_mean_terms(probe: Probe, progress: Progress | None = None) -> dict[str, torch.Tensor]:
    """The mean term of each attached expert, (D,) float32 where the model is.

    Args:
        probe: Of a model with a gated tower.
        progress: Told after each batch.

    Raises:
        ValueError: There is no gate.
        DataError: Too many images are broken.
    """
    if probe.tower is None or not isinstance(fusion := probe.tower.tove_fusion, ToVEFusion):
        raise ValueError("mean terms need a gated tower")
    sums: dict[str, torch.Tensor] = {}
    num_tokens = 0
    with eval_mode(probe.model):
        for done, batch in enumerate(probe.encode(range(probe.num_batches)), start=1):
            weight_I = torch.ones(len(batch.t_clip_IND), device=batch.t_clip_IND.device)
            gate_INK = fusion(batch.t_clip_IND, batch.grids, weight_I).gate_BNK
            for name, term_IND in fusion.terms(batch.t_clip_IND, batch.grids, gate_INK).items():
                sums[name] = sums.get(name, 0) + term_IND.double().sum((0, 1)).cpu()
            num_tokens += batch.t_clip_IND[..., 0].numel()
            if progress is not None:
                progress(done, probe.num_batches)
    return {name: (sum_D / max(num_tokens, 1)).float().to(probe.tower.device) for name, sum_D in sums.items()}
