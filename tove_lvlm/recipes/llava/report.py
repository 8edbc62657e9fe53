"""The model of LLaVA's two stages at its real size, for `recipes.report`."""

import dataclasses
from pathlib import Path

from torch import nn

from ...config import load
from ...config.llava import RunConfig
from ...config.sources import resolve_path
from ...lvlm.budget import Part, parts
from ...lvlm.meta import build_unloaded
from ...lvlm.quantization import size_quantized
from .setup import set_trainable


def sized_model(
    cfg_path: str | Path, options: list[str], stage: str | None = None
) -> tuple[str, int, nn.Module, list[Part], str]:
    """(stage, visual tokens, the model with its trainables, its parts, what their FLOPs are of).

    Args:
        cfg_path: The training YAML.
        options: `a.b=c` strings.
        stage: `pretrain` or `finetune`; none reads it off the YAML.

    Raises:
        ConfigError: The YAML does not fit, or the size of a part on the hub is not stated in it.
    """
    config = load(RunConfig, cfg_path, options)
    stage = stage or ("finetune" if config.lora.lora_enable or config.model.pretrain_mm_mlp_adapter else "pretrain")
    tower = resolve_path("model.tower", config.model.tower, Path(cfg_path).resolve().parent, "file")
    unloaded = build_unloaded(dataclasses.replace(config.model, tower=tower))
    num_tokens = unloaded.config.image_seq_length
    model = set_trainable(unloaded, stage, config)
    size_quantized(model, config.train.bits)
    return stage, num_tokens, model, parts(model), "the language model's FLOPs are those of reading them"
