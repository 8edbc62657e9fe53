"""Weight-only quantisation, as everybody serves 7B models: of everything but the tower, and of the tower too."""

import pytest
import torch
from transformers import BitsAndBytesConfig, LlavaForConditionalGeneration

from helpers.tiny_checkpoints import image_inputs, logits

pytest.importorskip("bitsandbytes")


def quantised(folder, skip):
    config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    return LlavaForConditionalGeneration.from_pretrained(folder, quantization_config=config, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def plain(checkpoints):
    return LlavaForConditionalGeneration.from_pretrained(checkpoints["merged"]).eval()


def test_of_everything_but_the_tower(checkpoints, plain):
    model = quantised(checkpoints["merged"], ["model.vision_tower", "model.multi_modal_projector", "lm_head"])
    pixels = image_inputs(plain)["pixel_values"]
    with torch.no_grad():
        ours, exact = (each.model.vision_tower(pixels).last_hidden_state for each in (model, plain))
    assert torch.equal(ours, exact)
    kinds = {type(module).__name__ for module in model.model.language_model.modules()}
    assert "Linear8bitLt" in kinds
    far = (logits(model, image_inputs(plain)) - logits(plain)).abs().max()
    assert 0 < far < 0.05 * logits(plain).abs().max()


def test_of_the_gate_and_the_transfers_too(checkpoints, plain):
    """Their weights are integers then; what they compute in is their norms' dtype."""
    model = quantised(checkpoints["merged"], ["lm_head"])
    assert model.model.vision_tower.tove_fusion.gate.fc1.weight.dtype == torch.int8
    pixels = image_inputs(plain)["pixel_values"]
    with torch.no_grad():
        ours, exact = (each.model.vision_tower(pixels) for each in (model, plain))
    assert (ours.gate_probs - exact.gate_probs).abs().max() < 0.05
    assert 0 < (ours.last_hidden_state - exact.last_hidden_state).abs().mean() < 0.05 * exact.last_hidden_state.std()
