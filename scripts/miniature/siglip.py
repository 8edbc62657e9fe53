"""A SigLIP of the miniature CLIP's size, for towers on a base that is no CLIP. It is not shipped.

As `clip`, with SigLIP's network (no class token, attention pooling) and its pairwise sigmoid loss (Zhai et al. 2023).

Shapes: B images, N patches, D width, P phrases.
"""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import SiglipConfig, SiglipModel

from tove_lvlm.world.scene import IMAGE_SIZE

from .clip import BATCH, RATE, SEED, STEPS, Captions, caption_ids, phrase_ids, phrase_targets, probe_tokens
from .common import (
    DEPTH,
    HEADS,
    PATCH,
    SIDE,
    WIDTH,
    Pool,
    Report,
    fit,
    normalised,
    save_image_processor,
    sincos_positions,
)


def build_model(captions: Captions) -> SiglipModel:
    """A SiglipModel with 2-D sine-cosine positions, fixed, in its ordinary position embedding."""
    shared = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": HEADS}
    config = SiglipConfig(
        vision_config={**shared, "num_hidden_layers": DEPTH, "image_size": IMAGE_SIZE, "patch_size": PATCH},
        text_config={
            **shared,
            "num_hidden_layers": 2,
            "vocab_size": captions.num_words,
            "max_position_embeddings": captions.length,
            "projection_size": WIDTH,
        },
    )
    model = SiglipModel(config)
    positions = model.vision_model.embeddings.position_embedding.weight
    with torch.no_grad():
        positions.copy_(sincos_positions(WIDTH, SIDE))
        model.logit_scale.fill_(math.log(10.0))
        model.logit_bias.fill_(-10.0)
    positions.requires_grad_(False)
    return model


def train(
    pool: Pool, out_dir: Path, report: Report, captions: Captions | None = None, steps: int | None = None
) -> dict:
    """As `clip.train`; the loss of patches and phrases is the same."""
    torch.manual_seed(SEED)
    captions = captions or Captions()
    model, scenes = build_model(captions), pool.train_scenes
    numbers = captions.numbers(scenes)
    phrases, targets = phrase_ids(captions), phrase_targets(captions, scenes, numbers)
    rng = np.random.default_rng(SEED + 1)
    scale = torch.nn.ParameterDict({"scale": torch.tensor(math.log(10.0)), "bias": torch.tensor(-6.0)})

    def text_of(ids: torch.Tensor) -> torch.Tensor:
        return F.normalize(model.get_text_features(ids).pooler_output, dim=-1)

    def loss_of(index: np.ndarray) -> torch.Tensor:
        output = model.vision_model(normalised(pool.train.rgb[index]))
        image_BD, patch_BND = F.normalize(output.pooler_output, dim=-1), F.normalize(output.last_hidden_state, dim=-1)
        text_BD = text_of(caption_ids(captions, numbers[index], scenes.num_objects[index], rng))
        logits_BB = image_BD @ text_BD.T * model.logit_scale.exp() + model.logit_bias
        same_BB = 2 * torch.eye(len(index)) - 1
        pairs = -F.logsigmoid(same_BB * logits_BB).sum() / len(index)
        match_BP = torch.logsumexp(patch_BND @ text_of(phrases).T * scale["scale"].exp(), dim=1) + scale["bias"]
        local = F.binary_cross_entropy_with_logits(match_BP, targets[index], reduction="sum") / len(index)
        return pairs + local

    size = {"steps": steps or STEPS, "batch": BATCH, "lr": RATE, "seed": SEED, "num_samples": len(scenes)}
    found = fit("siglip", [model, scale], loss_of, **size, report=report)
    vision = model.vision_model.eval()
    vision.half().save_pretrained(out_dir)
    save_image_processor(out_dir)
    found["parameters"] = sum(p.numel() for p in vision.parameters())
    found["heldout"] = probe_tokens(vision.float(), pool, class_tokens=0)
    return found
