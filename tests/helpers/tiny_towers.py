"""Tiny towers with random weights, saved in the same formats as real ones. For the tests of every floor.

16x16 pixels, patch 4, 4x4 tokens: a CLIP folder, two dense experts, two timm ones, and a tower YAML that names them.
"""

import hashlib
import json
from pathlib import Path

import torch
import yaml

SIZE, PATCH, WIDTH = 16, 4, 32
SIDE = SIZE // PATCH
EXPERT_NAMES = ["depth", "normals", "shapes", "cnn"]

CLIP_ARCHITECTURE = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": PATCH,
}
# Normalisations differ on purpose: depth and normals share one, the others each have their own.
HALF = [0.5, 0.5, 0.5]
DENSE = {"width": 24, "depth": 2, "heads": 2, "patch_size": 4, "image_size": 16, "mean": HALF, "std": HALF}
VIT_ARGS = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2, "reg_tokens": 2}
CNN_ARGS = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "stem_width": 8, "stem_type": "deep"}
EXPERTS = {
    "depth": {"family": "dense_vit", "output": "map", "channels": 1, **DENSE},
    "normals": {"family": "dense_vit", "output": "map", "channels": 3, **DENSE},
    "shapes": {
        "family": "timm",
        "architecture": "vit_tiny_patch16_224",
        "model_args": VIT_ARGS,
        "image_size": 16,
        "mean": [0.4, 0.4, 0.4],
        "std": [0.3, 0.3, 0.3],
    },
    "cnn": {"family": "timm", "architecture": "resnet18", "model_args": CNN_ARGS, "image_size": 32, "out_index": 3},
}


def make_clip(folder: Path, seed: int = 0) -> Path:
    """A vision-only CLIP folder with its preprocessor."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(seed)
    clip = CLIPVisionModel(CLIPVisionConfig(**CLIP_ARCHITECTURE))
    for parameter in clip.parameters():  # CLIP's own start is so small that its tokens hardly differ
        torch.nn.init.normal_(parameter, std=0.3)
    clip.save_pretrained(folder)
    save_image_processor(folder)
    return folder


def save_image_processor(folder: Path) -> None:
    """Write the preprocessor of an encoder of this size."""
    from transformers import CLIPImageProcessor

    CLIPImageProcessor(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}, image_mean=HALF, image_std=HALF
    ).save_pretrained(folder)


def make_expert(folder: Path, name: str, seed: int = 0) -> Path:
    """An expert's folder: model.safetensors in its family's own keys, config.json with the architecture fields."""
    from tove_lvlm import storage
    from tove_lvlm.experts import build_expert

    torch.manual_seed(seed)
    fields = EXPERTS[name]
    expert = build_expert({"name": name, **fields})
    state = {key: torch.randn_like(t) * 0.2 if t.is_floating_point() else t for key, t in expert.state_dict().items()}
    state = {key: t.abs() + 0.5 if key.endswith("running_var") else t for key, t in state.items()}
    if fields["family"] == "timm":
        state = {key.removeprefix("backbone."): tensor for key, tensor in state.items()}
        state["head.weight"], state["head.bias"] = torch.zeros(3, 24), torch.zeros(3)
    storage.save_tensors(folder / "model.safetensors", state)
    architecture = {key: value for key, value in fields.items() if key not in ("family", "output")}
    (folder / "config.json").write_text(json.dumps(architecture))
    return folder


def make_tower_yaml(folder: Path, experts: list[str] | None = None, **fusion) -> Path:
    """A folder with CLIP, experts and `tower.yaml`; returns the YAML.

    Args:
        folder: Where; made when it is missing.
        experts: Names out of EXPERT_NAMES; all when left out.
        **fusion: Settings of `tove_fusion`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    make_clip(folder / "clip")
    entries = []
    for seed, name in enumerate(experts if experts is not None else EXPERT_NAMES):
        make_expert(folder / name, name, seed + 1)
        output = {"output": EXPERTS[name]["output"]} if "output" in EXPERTS[name] else {}
        entries.append({"name": name, "family": EXPERTS[name]["family"], **output, "pretrained": f"./{name}"})
    tower = {"clip": {"pretrained": "./clip"}, "experts": entries, "fusion": {"stem_width": 16, **fusion}}
    path = folder / "tower.yaml"
    path.write_text(yaml.safe_dump(tower, sort_keys=False))
    return path


def wake(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give `tove_fusion` ordinary random weights, as after training, so that experts do something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.tove_fusion.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def pixels(batch: int = 2, seed: int = 0) -> torch.Tensor:
    """(B, 3, SIZE, SIZE) normalised pixels."""
    return torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path in it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
