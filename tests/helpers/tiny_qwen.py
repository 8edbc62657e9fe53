"""Tiny Qwen-VL models in their hub's own format: their vision encoders are bases and experts."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLModel,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen2VLModel,
    Qwen3_5Config,
    Qwen3_5Model,
    Qwen3VLConfig,
    Qwen3VLModel,
)

TEXT = {
    "hidden_size": 48,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 16,
}
VIT = {"depth": 3, "num_heads": 2, "patch_size": 4, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 48}
WINDOWS = {"window_size": 16, "fullatt_block_indexes": [1]}
DEEP = {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 36}
MODELS: dict[str, Any] = {
    "qwen2_vl": (
        Qwen2VLModel,
        Qwen2VLConfig,
        {"depth": 3, "num_heads": 2, "patch_size": 4, "embed_dim": 32, "hidden_size": 48},
    ),
    "qwen2_5_vl": (Qwen2_5_VLModel, Qwen2_5_VLConfig, {**VIT, **WINDOWS}),
    "qwen3_vl": (Qwen3VLModel, Qwen3VLConfig, {**VIT, **DEEP}),
    "qwen3_5": (Qwen3_5Model, Qwen3_5Config, {**VIT, "num_position_embeddings": 36}),
}
"""Model type -> class, class of the config, sizes of the vision encoder: tokens of 48 numbers for 8 x 8 pixels."""


def make_qwen(folder: Path, kind: str, size: int) -> Any:
    """Save a whole model and an image processor that makes every picture `size` x `size`; returns the model."""
    model_class, config_class, vision = MODELS[kind]
    torch.manual_seed(0)
    model = model_class(config_class(text_config=TEXT, vision_config=vision)).eval()
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2)
    model.save_pretrained(folder)
    pixels = {"shortest_edge": size**2, "longest_edge": size**2}
    Qwen2VLImageProcessor(patch_size=4, size=pixels).save_pretrained(folder)
    return model
