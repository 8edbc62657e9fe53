"""A world to time training in: a language model and a tower with random weights, rows of LLaVA's lengths, pictures.

The middle size keeps the proportions of 7B: of the language model's FLOPs in a step of stage 2, CLIP takes about 1 %
and the tower of five experts about 4.5 %. Attention has 96 of its language model's 768 channels, so that its FLOPs are
as small beside the other layers' as 7B's are (4 % at a thousand tokens); with all of them they would be five times as
many, and padding, which attention feels most, would look worse than it is.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from speed.lengths import RowLength, sample_rows

ROOT = Path(__file__).resolve().parent.parent.parent
RANKS = 8
"""LLaVA groups rows of similar length over its ranks; the timed run gets what the first of as many ranks gets."""

MIDDLE_LLM = {
    "hidden_size": 768,
    "intermediate_size": 2064,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 48,
    "max_position_embeddings": 2048,
}
MIDDLE_TOWER = {
    "clip": {
        "pretrained": "none",
        "architecture": {
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 5,
            "num_attention_heads": 2,
            "image_size": 336,
            "patch_size": 14,
        },
        "select_layer": -2,
    },
    "fusion": {"zero_init": True, "expert_dropout": 0.1, "stem_width": 16, "mlp_hidden": 64},
    "experts": [
        {"name": "features", "family": "timm", "architecture": "vit_tiny_patch16_224", "image_size": 112},
        {"name": "dense", "family": "timm", "architecture": "mobilenetv3_small_100", "image_size": 224},
        {"name": "edges", "family": "timm", "architecture": "resnet10t", "image_size": 96},
        {"name": "depth", "family": "dense_vit", "output": "map", "width": 64, "depth": 8, "heads": 2, "patch_size": 16,
         "channels": 1, "image_size": 224},
        {"name": "normals", "family": "dense_vit", "output": "map", "width": 64, "depth": 8, "heads": 2,
         "patch_size": 16, "channels": 3, "image_size": 224},
    ],
}  # fmt: skip
SIZES = ("miniature", "mid", "7b")


def write_world(folder: Path, size: str, num_batches: int, batch_size: int, seed: int = 0) -> dict[str, Any]:
    """Files of a size, and the run's configuration without what a variant sets.

    Args:
        folder: Is made.
        size: One of `SIZES`.
        num_batches: Micro-batches of one rank.
        batch_size: Rows of a micro-batch.
        seed: Of the rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run: dict[str, Any] = yaml.safe_load((ROOT / "projects" / "miniature" / "finetune.yaml").read_text())
    run["model"] = {"llm": "shipped:miniature/vicuna", "vision_tower": "tove"}
    run["model"]["tower"] = str(ROOT / "projects" / "miniature" / "tower.yaml")
    if size == "mid":
        run["model"] |= {"llm": str(_write_llm(folder / "llm", MIDDLE_LLM)), "tower": str(folder / "tower.yaml")}
        experts = [{**expert, "pretrained": "none"} for expert in MIDDLE_TOWER["experts"]]
        (folder / "tower.yaml").write_text(yaml.safe_dump({**MIDDLE_TOWER, "experts": experts}, sort_keys=False))
    elif size == "7b":
        project = yaml.safe_load((ROOT / "projects" / "tove_vicuna_7b" / "finetune.yaml").read_text())
        run["lora"] = project["lora"]
        run["model"]["llm"] = str(_write_llm(folder / "llm", project["model"]["llm_architecture"]))
        tower = yaml.safe_load((ROOT / project["model"]["tower"]).read_text())
        tower["clip"]["pretrained"] = "none"
        tower["experts"] = [{**expert, "pretrained": "none"} for expert in tower["experts"]]
        (folder / "tower.yaml").write_text(yaml.safe_dump(tower, sort_keys=False))
        run["model"]["tower"] = str(folder / "tower.yaml")
    run["data"] = {"train": [str(_write_rows(folder, num_batches, batch_size, seed))]}
    run["data"] |= {"image_folder": str(folder / "images"), "image_aspect_ratio": "pad"}
    run["train"] |= {
        "deepspeed": str(ROOT / "projects" / "deepspeed" / "zero2.json"),
        "max_steps": num_batches,
        "per_device_train_batch_size": batch_size,
        "model_max_length": 2048,
        "logging_steps": num_batches,
        "save_steps": 10**6,
        "save_merged": False,
        "bf16": False,
        "gradient_checkpointing": size != "miniature",
    }
    return run


def _write_llm(folder: Path, sizes: dict[str, Any]) -> Path:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from tove_lvlm.config.sources import resolve_source

    if (folder / "config.json").is_file():
        return folder
    tokenizer = AutoTokenizer.from_pretrained(resolve_source("shipped:miniature/vicuna"))
    tokenizer.save_pretrained(folder)
    sizes = {"vocab_size": len(tokenizer), **{key: value for key, value in sizes.items() if key != "model_type"}}
    torch.manual_seed(0)
    config = LlamaConfig(**sizes, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    dtype = torch.bfloat16 if sizes["hidden_size"] > 1024 else torch.float32
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    return folder


def _write_rows(folder: Path, num_batches: int, batch_size: int, seed: int) -> Path:
    """The first rank's rows in its order, as LLaVA's JSON, and their pictures."""
    from PIL import Image

    from tove_lvlm.data.sampler import ModalityLengthSampler

    rows = sample_rows(RANKS * batch_size * max(num_batches, 8) * 4, 2048, seed)
    lengths = [(row.question_tokens + row.answer_tokens) * (1 if row.has_image else -1) for row in rows]
    order = list(ModalityLengthSampler(lengths, batch_size, RANKS, seed))
    rng, samples = np.random.default_rng(seed), []
    (folder / "images").mkdir(exist_ok=True)
    for batch in range(num_batches):
        start = batch * RANKS * batch_size
        for index in order[start : start + batch_size]:
            sample = {"id": str(len(samples)), "conversations": _conversation(rows[index])}
            if rows[index].has_image:
                sample["image"] = f"{len(samples)}.jpg"
                pixels = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize((640, 480)).save(folder / "images" / sample["image"])
            samples.append(sample)
    path = folder / "rows.json"
    path.write_text(json.dumps(samples))
    return path


def _conversation(row: RowLength, word: str = "red") -> Sequence[dict[str, str]]:
    image = "<image>\n" if row.has_image else ""
    return [
        {"from": "human", "value": image + " ".join([word] * row.question_tokens)},
        {"from": "gpt", "value": " ".join([word] * row.answer_tokens)},
    ]
