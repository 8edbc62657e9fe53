"""Where images stand among the tokens, without the host waiting for the device.

transformers' LLaVA counts the image tokens of every batch and writes the number into a message that is only shown where
it is wrong; making the text reads the number, whatever TRANSFORMERS_DISABLE_TORCH_CHECK says.

Shapes: B texts, T tokens, D width.

See docs/design.md, "Training".
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def uncounted_image_tokens(llava: Any) -> Iterator[None]:
    """The image tokens of a batch are not counted until this is left; who makes the batches has compared them.

    Args:
        llava: transformers' `LlavaModel`.
    """
    inner = llava.get_placeholder_mask

    def get_placeholder_mask(
        input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor, image_features: torch.Tensor
    ) -> torch.Tensor:
        """(B, T, 1), true where an image's features go."""
        if input_ids is None:
            mask: torch.Tensor = inner(input_ids, inputs_embeds, image_features)
            return mask
        return (input_ids == llava.config.image_token_id).unsqueeze(-1)

    llava.get_placeholder_mask = get_placeholder_mask
    try:
        yield
    finally:
        del llava.get_placeholder_mask
