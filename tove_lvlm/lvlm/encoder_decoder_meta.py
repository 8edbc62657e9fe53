"""The base model at its real size and without its weights, and what it costs: on the meta device, nothing allocated.

Shapes: B images, T tokens, 3 H W pixels.
"""

from typing import Any, cast

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, VisionEncoderDecoderModel

from ..config import ConfigError
from ..config.encoder_decoder import EncoderDecoderConfig
from ..cost import count, flop_counter, totals_by_module
from ..storage.pretrained import read_pretrained
from ..tower.configuration import ToVEVisionConfig
from ..tower.cost import tower_parts
from ..tower.modeling import ToVEVisionModel
from .budget import Part
from .encoder_decoder import check_decoder, read_encoder_tower
from .meta import language_config, tower_with_detached

TEXT_TOKENS = 30
"""Tokens of a caption, for which the decoder's FLOPs are counted: Prismer's longest."""


def build_unloaded(config: EncoderDecoderConfig, dtype: torch.dtype = torch.bfloat16) -> VisionEncoderDecoderModel:
    """The model of a `model` block on the meta device.

    Args:
        config: Its paths resolved. `decoder_architecture` serves where the decoder's folder is not at hand; a model
            that starts from a finished run has that run's sizes.
        dtype: Of the weights.

    Raises:
        ConfigError: The size of a part cannot be found out.
    """
    if config.pretrained is not None:
        whole = read_pretrained(AutoConfig, config.pretrained)
        with torch.device("meta"):
            model = VisionEncoderDecoderModel(whole)
    else:
        decoder_config = _decoder_config(config)
        with torch.device("meta"):
            tower = ToVEVisionModel(_tower_config(config))
            decoder = AutoModelForCausalLM.from_config(decoder_config)
            model = VisionEncoderDecoderModel(encoder=tower, decoder=decoder)
    cast(nn.Module, model).to(dtype)  # transformers' own `to` loses `self` for type checkers
    return model


def encoder_decoder_parts(model: VisionEncoderDecoderModel) -> list[Part]:
    """CLIP, each expert, the fusion, the layer in between where there is one, and the decoder.

    Args:
        model: With `requires_grad` as a run sets it, on the meta device.

    Returns:
        FLOPs are those of one image; of the decoder, of TEXT_TOKENS tokens that look at it.
    """
    tower = cast(ToVEVisionModel, model.encoder)
    named = dict(tower_parts(tower))
    if hasattr(model, "enc_to_dec_proj"):
        named["enc_to_dec_proj"] = cast(nn.Module, model.enc_to_dec_proj)
    named["decoder"] = cast(nn.Module, model.decoder)
    size = tower.config.image_size
    pixels_B3HW = torch.zeros(1, 3, size, size, device="meta", dtype=model.dtype)
    ids_BT = torch.zeros(1, TEXT_TOKENS, device="meta", dtype=torch.long)
    with (
        torch.no_grad(),
        flop_counter() as counter,
        totals_by_module(named.values(), counter.get_total_flops) as flops,
    ):
        model(pixel_values=pixels_B3HW, decoder_input_ids=ids_BT, use_cache=False)
    rows = []
    for name, module in named.items():
        trainable, frozen = count(module)
        rows.append(Part(name=name, trainable=trainable, frozen=frozen, flops=int(flops[module])))
    return rows


def _tower_config(config: EncoderDecoderConfig) -> ToVEVisionConfig:
    if config.vision_tower not in ("tove", "clip"):
        raise ConfigError(f"`model.vision_tower` is `{config.vision_tower}`; sizes are read for `tove` and `clip`")
    return tower_with_detached(read_encoder_tower(config), config.detached, "`model.detached`")


def _decoder_config(config: EncoderDecoderConfig) -> Any:
    source = cast(str, config.decoder)
    decoder = language_config(source, config.decoder_architecture, "decoder")
    decoder.is_decoder = decoder.add_cross_attention = True
    check_decoder(decoder, source)
    return decoder
