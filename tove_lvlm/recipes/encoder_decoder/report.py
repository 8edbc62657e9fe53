"""The base model of a training YAML at its real size, for `recipes.report`."""

import dataclasses
from pathlib import Path
from typing import cast

from torch import nn

from ...config import load
from ...config.encoder_decoder import RunConfig
from ...config.sources import resolve_path
from ...lvlm.budget import Part
from ...lvlm.encoder_decoder_meta import TEXT_TOKENS, build_unloaded, encoder_decoder_parts
from ...lvlm.trainable import set_trainable
from ...tower.modeling import ToVEVisionModel


def sized_model(cfg_path: str | Path, options: list[str]) -> tuple[str, int, nn.Module, list[Part], str]:
    """(what learns, visual tokens, the model with its trainables, its parts, what their FLOPs are of).

    Args:
        cfg_path: The training YAML.
        options: `a.b=c` strings.

    Raises:
        ConfigError: The YAML does not fit, or the size of a part on the hub is not stated in it.
    """
    config, base = load(RunConfig, cfg_path, options), Path(cfg_path).resolve().parent
    block = dataclasses.replace(
        config.model,
        tower=resolve_path("model.tower", config.model.tower, base, "file"),
        pretrained=resolve_path("model.pretrained", config.model.pretrained, base, "folder"),
    )
    model = build_unloaded(block)
    set_trainable(model, config.train.trainable)
    note = f"the decoder's FLOPs are those of {TEXT_TOKENS} tokens of text that look at them"
    num_tokens = cast(ToVEVisionModel, model.encoder).config.num_tokens
    return config.train.trainable, num_tokens, model, encoder_decoder_parts(model), note
