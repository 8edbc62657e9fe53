"""ToVE_Vicuna: LLaVA's two stages of training. Importing this brings no torch."""

from .stage import FINETUNE, PRETRAIN, LlavaStage

__all__ = ["FINETUNE", "PRETRAIN", "LlavaStage"]
