"""The base model's one objective: each text's next tokens, given its image.

An image is seen once, however many texts it has; its texts are rows of their own and do not see each other.

Shapes: I images, N tokens, D width, R rows, T tokens, V vocabulary, 3 H W pixels.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers import VisionEncoderDecoderModel
from transformers.modeling_outputs import BaseModelOutput

from ...data.conversations import IGNORE_INDEX
from ...tower.output import ToVEOutput


@dataclass
class TextLoss:
    """What a micro-batch gives."""

    loss_sum: torch.Tensor
    """Cross-entropy with label smoothing, summed over all labels; float32."""
    num_texts: int
    tower: ToVEOutput
    """Of the encoder, with `gate_probs` and `balance_loss`."""


class TextObjective(nn.Module):
    """A base model with its loss.

    Args:
        model: The base model; its tower may have no expert.
        label_smoothing: Share of a token's target that is spread over the vocabulary.
    """

    accepts_loss_kwargs = True
    """transformers' Trainer counts the labels of the global batch for such a model."""

    def __init__(self, model: VisionEncoderDecoderModel, label_smoothing: float = 0.0):
        super().__init__()
        self.model, self.label_smoothing = model, label_smoothing

    @property
    def config(self) -> Any:
        """The decoder's, by whose width transformers chooses DeepSpeed's bucket sizes."""
        return self.model.config.decoder

    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
        logits_to_keep: torch.Tensor,
        image_of: torch.Tensor,
        text_weight: torch.Tensor | None = None,
    ) -> TextLoss:
        """The loss of a batch of `data.text_dataset.TextCollator`.

        Args:
            pixel_values: (I, 3, H, W).
            input_ids: (R, T), padded on the right.
            attention_mask: (R, T).
            labels: (R, L), what the places predict; `IGNORE_INDEX` where nothing is to be learnt.
            logits_to_keep: (R, L), the places that are asked for logits.
            image_of: (R,) image of each row.
            text_weight: (R,) what each text's cross-entropy is multiplied by; 1 where it is left out.
        """
        encoder = cast(nn.Module, self.model.encoder)
        seen: ToVEOutput = encoder(pixel_values=pixel_values.to(self.model.dtype))
        tokens_RND = cast(torch.Tensor, seen.last_hidden_state)[image_of]
        output = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=cast(torch.FloatTensor, tokens_RND)),
            decoder_input_ids=input_ids,
            decoder_attention_mask=attention_mask,
            decoder_logits_to_keep=logits_to_keep,
            use_cache=False,
        )
        loss_RL = F.cross_entropy(
            output.logits.float().flatten(0, 1),
            labels.flatten(),
            ignore_index=IGNORE_INDEX,
            label_smoothing=self.label_smoothing,
            reduction="none",
        ).view_as(labels)
        if text_weight is not None:
            loss_RL = loss_RL * text_weight[:, None]
        return TextLoss(loss_sum=loss_RL.sum(), num_texts=len(input_ids), tower=seen)

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """The decoder's; the tower's own work has no gradient but for `tove_fusion`."""
        decoder: Any = self.model.decoder
        decoder.activation_checkpointing_enable(**kwargs)
