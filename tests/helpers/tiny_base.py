"""The base model with random weights, out of a tiny decoder and a tiny tower."""

from pathlib import Path

import torch

from helpers import tiny_towers
from tove_lvlm.checkpoints.encoder_decoder import save_encoder_decoder
from tove_lvlm.config.encoder_decoder import EncoderDecoderConfig
from tove_lvlm.lvlm.encoder_decoder import build_encoder_decoder
from tove_lvlm.lvlm.lora import collect_merged
from tove_lvlm.lvlm.trainable import cross_attention_names


def build_base(decoder: Path, tower: Path, **keys):
    """The model in eval mode with ordinary weights in its new parts, as after training, and its processor.

    Args:
        decoder: Folder of `tiny_decoders.make_decoder`.
        tower: YAML.
        **keys: Further keys of `model`.
    """
    torch.manual_seed(0)
    model, processor = build_encoder_decoder(EncoderDecoderConfig(decoder=str(decoder), tower=str(tower), **keys))
    new = cross_attention_names(model.decoder)
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():
            if name in new:
                parameter.normal_(std=0.3)
        if hasattr(model, "enc_to_dec_proj"):
            model.enc_to_dec_proj.weight.normal_(std=0.3)
    if model.encoder.expert_names:
        tiny_towers.wake(model.encoder)
    return model.eval(), processor


def save_base(folder: Path, model, processor) -> Path:
    """The folder that training writes."""
    save_encoder_decoder(folder, collect_merged(model), model, processor)
    return folder
