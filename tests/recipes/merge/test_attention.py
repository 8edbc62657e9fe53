"""The class token's attention, recorded from a layer that does not give it."""

import pytest
import torch

from helpers import tiny_towers
from tove_lvlm.recipes.merge.attention import ClassAttention


@pytest.mark.parametrize("layer", [0, 1])
def test_class_attention_is_that_of_the_eager_layer(tower, layer):
    recorder = ClassAttention(tower.clip.encoder.layers[layer])
    tower(tiny_towers.pixels(3))
    from transformers import CLIPVisionModel

    eager = CLIPVisionModel(tower.clip.config)
    eager.load_state_dict(tower.clip.state_dict())
    eager.set_attn_implementation("eager")
    attentions = eager(tiny_towers.pixels(3), output_attentions=True).attentions[layer]
    # Each head's row of the class token over the patches alone, then the mean over heads.
    row_BHN = attentions[:, :, 0, 1:]
    expected = (row_BHN / row_BHN.sum(dim=-1, keepdim=True)).mean(dim=1)
    torch.testing.assert_close(recorder.weight_BN, expected)
    assert recorder.weight_BN.std() > 1e-3
    recorder.remove()
    tower(tiny_towers.pixels(3))
    assert recorder.weight_BN is None
