"""Tiny base encoders that are no CLIP, in their hub's own format, and towers on them."""

from pathlib import Path
from typing import Any

import torch
import yaml

from helpers.tiny_towers import EXPERTS, PATCH, SIZE, WIDTH, make_expert, save_image_processor

TRANSFORMERS: dict[str, dict[str, Any]] = {
    "siglip_vision_model": {},
    "dinov2": {},
    "dinov2_with_registers": {"num_register_tokens": 3},
}
"""model_type -> further fields of its config."""


def make_base(folder: Path, model_type: str, seed: int = 0) -> Path:
    """A folder with a vision encoder of transformers and its preprocessor."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(seed)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = AutoConfig.for_model(model_type, **sizes, image_size=SIZE, patch_size=PATCH, **TRANSFORMERS[model_type])
    model = AutoModel.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    save_image_processor(folder)
    return folder


def make_tower_on(folder: Path, base: dict[str, Any], experts: tuple[str, ...] = ("depth", "shapes")) -> Path:
    """`tower.yaml` with a base and some experts; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for seed, name in enumerate(experts):
        make_expert(folder / name, name, seed + 1)
        output = {"output": EXPERTS[name]["output"]} if "output" in EXPERTS[name] else {}
        entries.append({"name": name, "family": EXPERTS[name]["family"], **output, "pretrained": f"./{name}"})
    path = folder / "tower.yaml"
    path.write_text(yaml.safe_dump({"base": base, "experts": entries, "fusion": {"stem_width": 16}}, sort_keys=False))
    return path
