"""What a run of the base model trains, by name.

fusion_and_cross_attention   `tove_fusion` and the decoder's cross-attention; the language model stays as it was. The
                             default: what Prismer calls `freeze_lang_vision`, without adaptors.
language_model               the whole decoder; the tower stays as it is (Prismer's `freeze_vision`, for fine-tuning).
all_but_backbones            both.

CLIP and experts never learn. The linear layer between tower and decoder, where their widths differ, always does.
"""

import re
from typing import cast

from torch import nn
from transformers import VisionEncoderDecoderModel

# RoBERTa, BERT and GPT-2 say crossattention, GPT-2's norm before it is ln_cross_attn, BART's kin have encoder_attn.
_CROSS_ATTENTION = re.compile(r"(^|\.)(crossattention|cross_attn|ln_cross_attn|encoder_attn)(\.|_|$)")


def cross_attention_names(decoder: nn.Module) -> set[str]:
    """Full names of a decoder's parameters and buffers that belong to its cross-attention, its norms included: what is
    new where a language model learns to look at images. Empty where it cannot.
    """
    names = [*dict(decoder.named_parameters()), *dict(decoder.named_buffers())]
    return {name for name in names if _CROSS_ATTENTION.search(name)}


def set_trainable(model: VisionEncoderDecoderModel, plan: str) -> None:
    """Freeze a model but for what a plan names.

    Args:
        model: The base model.
        plan: One of `config.encoder_decoder.TRAINABLE`.
    """
    decoder = cast(nn.Module, model.decoder)
    cast(nn.Module, model).requires_grad_(False)
    cast(nn.Module, model.encoder).requires_grad_(plan != "language_model")
    learning = cross_attention_names(decoder)
    for name, parameter in decoder.named_parameters():
        parameter.requires_grad_(plan != "fusion_and_cross_attention" or name in learning)
    if hasattr(model, "enc_to_dec_proj"):
        cast(nn.Module, model.enc_to_dec_proj).requires_grad_(True)
