"""What a CLIP's class token attends to, for one layer, while all layers keep their fast attention.

B images, N patch tokens, D width, H heads, E width of a head.
"""

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers.models.clip.modeling_clip import CLIPAttention, CLIPEncoderLayer


class ClassAttention:
    """Records the class token's attention in one layer of a CLIP whenever that layer runs.

    Fused attention gives no probabilities. They are made again for this one query from the layer's own projections,
    which costs one more key projection of one layer.

    Args:
        layer: A CLIP encoder layer.
    """

    def __init__(self, layer: "CLIPEncoderLayer"):
        self.attention = layer.self_attn
        self.weight_BN: torch.Tensor | None = None
        """Attention over the patch tokens, mean over heads, sums to 1 (the class token's own share left out)."""
        self._handle = self.attention.register_forward_pre_hook(self._keep, with_kwargs=True)

    @torch.no_grad()
    def _keep(self, module: "CLIPAttention", args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens_BMD = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        heads = (tokens_BMD.shape[0], -1, module.num_heads, module.head_dim)
        q_BHE = module.q_proj(tokens_BMD[:, :1]).view(heads).squeeze(1)
        k_BNHE = module.k_proj(tokens_BMD[:, 1:]).view(heads)
        logits_BHN = torch.einsum("bhe,bnhe->bhn", q_BHE.float(), k_BNHE.float()) * module.scale
        self.weight_BN = logits_BHN.softmax(dim=-1).mean(dim=1)

    def remove(self) -> None:
        """Stop recording."""
        self._handle.remove()
        self.weight_BN = None
