"""LoRA: where it goes, and that merging changes nothing but the form."""

import pytest
import torch

from helpers.tiny_checkpoints import add_awake_lora, logits
from tove_lvlm.config.model import LoraConfig
from tove_lvlm.lvlm.lora import add_lora, collect_merged


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


@torch.no_grad()
@pytest.mark.parametrize("keys", [{"use_dora": True}, {"use_rslora": True}, {"use_dora": True, "use_rslora": True}])
def test_pefts_other_kinds_merge_to_the_model_that_was_trained(built, keys):
    model, _ = built
    plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wrapped = add_lora(model, LoraConfig(lora_enable=True, lora_r=4, lora_alpha=8, lora_dropout=0.0, **keys)).eval()
    torch.manual_seed(3)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.2)
        elif "lora_magnitude" in name:
            parameter.mul_(1 + 0.2 * torch.rand_like(parameter))
    if "use_rslora" in keys:
        layer = wrapped.base_model.model.model.language_model.layers[1].mlp.down_proj
        assert layer.scaling["default"] == 8 / 2, "alpha over the root of r"
    expected, merged = logits(wrapped), collect_merged(wrapped)
    assert merged.keys() == plain.keys()
    restored = wrapped.unload()
    restored.load_state_dict(merged)
    torch.testing.assert_close(logits(restored), expected, atol=1e-4, rtol=1e-3)
