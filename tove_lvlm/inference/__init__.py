"""Ask a trained model: in words, one by one or in batches, or by the likelihood of given answers."""

from typing import Any

from torch import nn
from transformers import VisionEncoderDecoderModel

from .encoder_decoder import EncoderDecoderResponder
from .llava import LlavaResponder
from .responder import Responder, ScoredChoice

__all__ = ["EncoderDecoderResponder", "LlavaResponder", "Responder", "ScoredChoice", "responder_of"]


def responder_of(model: nn.Module, processor: Any) -> Responder:
    """What asks a model of this kind.

    Args:
        model: A LLaVA model, inside peft or not, or a base model.
        processor: Its own.
    """
    kind = EncoderDecoderResponder if isinstance(model, VisionEncoderDecoderModel) else LlavaResponder
    return kind(model, processor)
