"""A small expert of every family, with random weights, and pixels for it."""

import torch

from helpers import tiny_towers
from helpers.random_weights import lively
from tove_lvlm.experts import Expert, build_expert

_SIZES = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
_NECK = {"neck_hidden_sizes": [8, 8, 12, 12], "fusion_hidden_size": 8}
_BIT = {"embedding_size": 8, "hidden_sizes": [8, 16, 24], "depths": [1, 1, 1], "num_groups": 2, "model_type": "bit"}
_BIT |= {"layer_type": "bottleneck", "global_padding": "same", "embedding_dynamic_padding": True}
_BIT |= {"out_features": ["stage1", "stage2", "stage3"]}
_VIT = {"width": 32, "layers": 2, "head_width": 16, "patch_size": 8, "image_size": 32}
DPT = {"model_type": "dpt", **_SIZES, **_NECK, "intermediate_size": 48, "image_size": 64, "patch_size": 16}
HYBRID = {**DPT, "is_hybrid": True, "reassemble_factors": [1, 1, 1, 0.5], "neck_hidden_sizes": [8, 16, 12, 12]}
HYBRID |= {"backbone_featmap_shape": [1, 24, 4, 4], "backbone_out_indices": [0, 1, 2, 3], "backbone_config": _BIT}
DINO = {"model_type": "dinov2", **_SIZES, "image_size": 56, "patch_size": 14, "reshape_hidden_states": False}
DEPTH_ANYTHING = {"model_type": "depth_anything", **_NECK, "reassemble_hidden_size": 24, "head_hidden_size": 8}
DEPTH_ANYTHING |= {"backbone_config": {**DINO, "out_indices": [1, 2, 3, 4]}}
CONVNEXT = {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}

ENTRIES = {
    "dense_vit": tiny_towers.EXPERTS["depth"],
    "depth_dpt": {"family": "depth", "architecture": {**DPT, "backbone_out_indices": [0, 1, 2, 3]}, "image_size": 64},
    "depth_hybrid": {"family": "depth", "architecture": HYBRID, "image_size": 64},
    "depth_anything": {"family": "depth", "architecture": DEPTH_ANYTHING, "image_size": 56},
    "depth_features": {"family": "depth", "architecture": DEPTH_ANYTHING, "image_size": 56, "output": "features"},
    "dexined": {"family": "dexined", "image_size": 64},
    "edge_filter_canny": {"family": "edge_filter", "filter": "canny", "image_size": 64},
    "edge_filter_sobel": {"family": "edge_filter", "filter": "sobel", "image_size": 64},
    "hed": {"family": "hed", "image_size": 64},
    "normal_bae": {"family": "normal_bae", "image_size": 64},
    "normals_from_depth": {
        "family": "normals_from_depth",
        "image_size": 56,
        "depth": {"family": "depth", "architecture": DEPTH_ANYTHING},
    },
    "open_clip_vit": {
        "family": "open_clip",
        "image_size": 32,
        "architecture": {
            "embed_dim": 16,
            "vision_cfg": _VIT,
            "text_cfg": {"context_length": 4, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1},
        },
    },
    "text_map": {"family": "text_map", "image_size": 64},
    "timm_vit": tiny_towers.EXPERTS["shapes"],
    "timm_resnet": tiny_towers.EXPERTS["cnn"],
    "timm_convnext": {"family": "timm", "architecture": "convnext_atto", "model_args": CONVNEXT, "image_size": 64},
    "timm_sam": {
        "family": "timm",
        "architecture": "samvit_base_patch16",
        "model_args": {"img_size": 64, "global_attn_indexes": (), "embed_dim": 24, "depth": 6, "num_heads": 2},
        "image_size": 64,
    },
    "transformers_dinov2": {"family": "transformers", "architecture": DINO, "image_size": 56},
}
"""Name -> entry of a tower's config; a name begins with its family's."""
CONVOLUTIONAL = {
    "depth_dpt",
    "depth_hybrid",
    "depth_anything",
    "depth_features",
    "dexined",
    "hed",
    "normal_bae",
    "normals_from_depth",
    "text_map",
    "timm_resnet",
    "timm_convnext",
}
"""Those whose convolutions read more than patches."""


def small_expert(name: str, scale: float | None = None) -> Expert:
    """An expert of `ENTRIES`.

    Args:
        name: Its key.
        scale: Of ordinary random weights; none keeps those that the library begins with, seeded.
    """
    torch.manual_seed(0)
    expert = build_expert({"name": name, **ENTRIES[name]})
    return expert if scale is None else lively(expert, scale)


def smooth_pixels(expert: Expert, batch: int = 2, seed: int = 0) -> torch.Tensor:
    """(B, 3, S, S) of random blobs at the expert's size, which are nearer to a photograph than noise."""
    size = expert.spec.preprocessing.size
    coarse = torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False)
