"""The open_clip family: every kind of visual trunk equals open_clip's own, from files as open_clip writes them."""

import json
import sys

import open_clip
import pytest
import torch
from open_clip.push_to_hf_hub import save_config_for_hf
from safetensors.torch import save_file

from tove_lvlm.config import ConfigError
from tove_lvlm.config.sources import WEIGHT_KEYS
from tove_lvlm.experts import build_expert, describe
from tove_lvlm.experts.catalogue import entry_of
from tove_lvlm.experts.schema import complete_fields
from tove_lvlm.storage import WeightsError

WEIGHTS = open_clip.constants.HF_SAFE_WEIGHTS_NAME
TEXT = {"context_length": 4, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TIMM = {"image_size": 224, "timm_pool": "", "timm_proj": "linear"}
VISION = {
    "vit": VIT,
    "clipa": {**VIT, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
    "coca": {**VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "patch_size": None},
    "eva02": {**TIMM, "timm_model_name": "test_vit", "image_size": 160, "timm_pool": "token", "timm_proj": None},
    "siglip": {**TIMM, "timm_model_name": "test_vit3", "image_size": 160, "timm_pool": "map", "timm_proj": "none"},
    "convnext": {**TIMM, "timm_model_name": "test_convnext", "image_size": 160, "timm_proj": "mlp"},
}


def config_of(kind: str) -> dict:
    return {"embed_dim": 16, "vision_cfg": VISION[kind], "text_cfg": TEXT, "quick_gelu": kind == "vit"}


def model_of(kind: str, **vision) -> torch.nn.Module:
    torch.manual_seed(0)
    config = config_of(kind)
    classes = open_clip.CustomTextCLIP if kind == "siglip" else open_clip.CLIP
    model = classes(**{**config, "vision_cfg": {**config["vision_cfg"], **vision}}).eval()
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def save(model, kind, folder) -> None:
    """The two files that matter of open_clip's `save_for_hf`."""
    open_clip.set_model_preprocess_cfg(model, {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)})
    save_config_for_hf(model, folder / "open_clip_config.json", config_of(kind))
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / WEIGHTS)


def expert_of(folder, **fields):
    expert = build_expert(complete_fields({"name": "e", "family": "open_clip", **fields}, str(folder), "test"))
    expert.load_pretrained(folder / WEIGHTS)
    return expert


def trunk_grid(visual, pixels_B3HW) -> torch.Tensor:
    """From the library's own forward alone: a timm trunk's features, or what a ViT is about to pool."""
    if hasattr(visual, "trunk"):
        found = visual.trunk.forward_features(pixels_B3HW)
        if found.ndim == 4:
            return found
        tokens_BND = found[:, visual.trunk.num_prefix_tokens :]
    elif hasattr(visual, "attnpool"):
        visual.attnpool = torch.nn.Identity()
        return visual(pixels_B3HW)
    else:
        tokens_BND = visual.transformer(visual._embeds(pixels_B3HW))[:, 1:]
        if visual.attn_pool is None and not visual.final_ln_after_pool:
            tokens_BND = visual.ln_post(tokens_BND)
    side = int(tokens_BND.shape[1] ** 0.5)
    return tokens_BND.transpose(1, 2).unflatten(2, (side, side))


@pytest.mark.parametrize("kind", VISION)
def test_grid_is_open_clips_own_trunk(kind, tmp_path):
    model = model_of(kind)
    save(model, kind, tmp_path)
    expert = expert_of(tmp_path)
    size = VISION[kind]["image_size"]
    assert expert.spec.preprocessing == (size, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    pixels_B3HW = torch.randn(2, 3, size, size)
    with torch.no_grad():
        grid, expected = expert(pixels_B3HW), trunk_grid(model.visual, pixels_B3HW)
    assert tuple(grid.shape[1:]) == (expert.spec.channels, *expert.spec.grid)
    torch.testing.assert_close(grid, expected, atol=1e-5, rtol=1e-4)
    beside = ("text", "pool", "backbone.proj", "head.weight", "logit")
    assert not [key for key in expert.state_dict() if any(part in key for part in beside)]


@pytest.mark.parametrize(("kind", "size"), [("vit", 48), ("eva02", 192), ("siglip", 192)])
def test_positions_of_another_image_size_are_those_that_open_clip_makes(kind, size, tmp_path):
    model = model_of(kind)
    save(model, kind, tmp_path)
    larger = model_of(kind, image_size=size)
    if kind == "vit":
        open_clip.load_checkpoint(larger, str(tmp_path / WEIGHTS))
    else:
        larger.load_state_dict(model.state_dict())
        larger.visual.set_input_size(size)
    expert = expert_of(tmp_path, image_size=size)
    pixels_B3HW = torch.randn(1, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(expert(pixels_B3HW), trunk_grid(larger.visual, pixels_B3HW), atol=1e-5, rtol=1e-4)


def test_a_missing_or_foreign_tensor_under_visual_is_named(tmp_path):
    model = model_of("vit")
    save(model, "vit", tmp_path)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    gone = {key: value for key, value in state.items() if key != "visual.ln_post.weight"}
    save_file(gone, tmp_path / WEIGHTS)
    with pytest.raises(WeightsError, match=r"open_clip_model\.safetensors.*1 missing \(backbone\.ln_post\.weight\)"):
        expert_of(tmp_path)
    save_file({**state, "visual.neck.weight": torch.ones(1)}, tmp_path / WEIGHTS)
    with pytest.raises(WeightsError, match=r"1 unexpected \(backbone\.neck\.weight\)"):
        expert_of(tmp_path)


def test_no_text_tower_is_built(monkeypatch):
    monkeypatch.setattr(open_clip.model, "_build_text_tower", None)
    assert describe({"name": "e", "family": "open_clip", "architecture": "RN50"}).grid == (7, 7)


@pytest.mark.parametrize(
    ("reference", "size", "grid", "channels"),
    [
        ("EVA02-L-14-336/merged2b_s6b_b61k", 336, 24, 1024),
        ("ViT-SO400M-14-SigLIP-384/webli", 384, 27, 1152),  # 384 is no multiple of 14: as it was trained
        ("convnext_base_w/laion2b_s13b_b82k", 256, 8, 1024),
    ],
)
def test_any_model_by_name_and_tag(reference, size, grid, channels):
    entry = entry_of(f"open_clip/{reference}")
    known = open_clip.get_pretrained_cfg(*reference.split("/"))
    assert entry["pretrained"] == known["hf_hub"].rstrip("/")
    assert (entry["image_size"], entry["mean"], entry["std"]) == (size, list(known["mean"]), list(known["std"]))
    spec = describe({key: value for key, value in entry.items() if key not in WEIGHT_KEYS})
    assert (spec.grid, spec.channels) == ((grid, grid), channels)


def test_openais_weights_get_their_activation():
    """open_clip only warns when a model's activation is not that of the weights."""
    assert entry_of("open_clip/ViT-B-32/openai")["quick_gelu"]
    assert "quick_gelu" not in entry_of("open_clip/ViT-B-32-quickgelu/openai")
    assert "quick_gelu" not in entry_of("open_clip/ViT-B-32/laion2b_s34b_b79k")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("EVA02-L-14-33/merged2b_s6b_b61k", "open_clip has no model `EVA02-L-14-33`; did you mean `EVA02-L-14-336`"),
        ("EVA02-L-14-336/merged2b_s6b", "no weights `merged2b_s6b`; did you mean `merged2b_s6b_b61k`"),
        ("EVA02-L-14-336", "needs the tag of its weights: `open_clip/EVA02-L-14-336/TAG`; valid: `merged2b_s6b_b61k`"),
    ],
)
def test_unknown_names_list_the_nearest(reference, message):
    with pytest.raises(ConfigError, match=message):
        entry_of(f"open_clip/{reference}")


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ImportError, match=r"`open_clip`, which is not installed: pip install 'tove-lvlm\[experts\]'"):
        describe({"name": "e", "family": "open_clip", "architecture": "RN101"})


@torch.no_grad()
def test_half_precision_stays_half():
    expert = build_expert({"name": "e", "family": "open_clip", "architecture": config_of("vit"), "image_size": 32})
    assert expert.bfloat16()(torch.zeros(1, 3, 32, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_what_cannot_be_built_is_refused_when_it_is_described():
    entry = {"name": "e", "family": "open_clip", "architecture": config_of("vit")}
    with pytest.raises(ConfigError, match="`image_size` 30 is not a multiple of the patch size 8"):
        describe({**entry, "image_size": 30})
    with pytest.raises(ConfigError, match="`image_size` 4 .* nearest: 8 or 16"):
        describe({**entry, "image_size": 4})
    with pytest.raises(ConfigError, match="unexpected keyword argument 'widht'"):
        describe({**entry, "image_size": 32, "model_args": {"widht": 3}})
    with pytest.raises(ConfigError, match="without `embed_dim` and `vision_cfg`"):
        describe({**entry, "architecture": json.loads("{}")})
