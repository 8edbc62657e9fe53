"""A base model with its experts merged: the same decoder behind a tower that is the student CLIP alone."""

from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel, VisionEncoderDecoderModel

from ...checkpoints import LoadedCheckpoint
from .bare_tower import around


def replace_encoder(loaded: LoadedCheckpoint, student: PreTrainedModel) -> VisionEncoderDecoderModel:
    """The base model with a CLIP in its tower's place.

    Args:
        loaded: A base model, which gives its decoder away.
        student: What stands in its place.
    """
    old = cast(VisionEncoderDecoderModel, loaded.model)
    tower = around(student, loaded.require_tower().config).to(old.dtype)
    model = VisionEncoderDecoderModel(encoder=tower, decoder=old.decoder)
    if hasattr(old, "enc_to_dec_proj"):
        model.enc_to_dec_proj = old.enc_to_dec_proj
    for key in ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.config, key, getattr(old.config, key))
    model.generation_config = old.generation_config
    cast(nn.Module, model).requires_grad_(False)
    return model.eval()


@torch.no_grad()
def write_encoder_decoder(
    folder: Path, loaded: LoadedCheckpoint, student: PreTrainedModel
) -> VisionEncoderDecoderModel:
    """Write it with its processor.

    Args:
        folder: Where.
        loaded: As for `replace_encoder`.
        student: The same.
    """
    model = replace_encoder(loaded, student)
    model.save_pretrained(folder)
    loaded.processor.save_pretrained(folder)
    return model
