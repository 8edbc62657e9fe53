"""LoRA: where it goes, and that merging changes nothing but the form."""

import torch

from helpers.tiny_checkpoints import add_awake_lora
from tove_lvlm.lvlm.lora import collect_merged


def test_lora_is_on_every_linear_of_the_language_model_and_nowhere_else(built):
    wrapped = add_awake_lora(built[0])
    held = {name.split(".lora_")[0] for name, _ in wrapped.named_parameters() if ".lora_" in name}
    assert len(held) == 2 * 7
    assert all(name.startswith("base_model.model.model.language_model.layers.") for name in held)
    trained = {name for name, p in wrapped.named_parameters() if p.requires_grad and ".lora_" not in name}
    assert all(".multi_modal_projector." in name or ".tove_fusion." in name for name in trained)


def test_merging_is_w_plus_scaled_ba(built):
    wrapped = add_awake_lora(built[0])
    merged = collect_merged(wrapped)
    layer = wrapped.base_model.model.model.language_model.layers[1].mlp.down_proj
    expected = layer.base_layer.weight + 8 / 4 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(merged["model.language_model.layers.1.mlp.down_proj.weight"], expected)
    assert not any("lora" in name or "base_layer" in name for name in merged)
