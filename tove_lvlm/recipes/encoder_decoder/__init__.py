"""The base model: captions, questions and statements in one objective. Importing this brings no torch."""

from .stage import FINETUNE, PRETRAIN, EncoderDecoderStage

__all__ = ["FINETUNE", "PRETRAIN", "EncoderDecoderStage"]
