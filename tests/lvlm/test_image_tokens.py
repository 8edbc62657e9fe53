"""Image tokens that are not counted stand where transformers finds them."""

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaModel

from helpers.host_waits import HostWaits
from tove_lvlm.lvlm.image_tokens import uncounted_image_tokens

IMAGE = 7


@pytest.fixture(scope="module")
def llava() -> LlavaModel:
    vision = CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    text = LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    return LlavaModel(LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE))


def test_the_mask_is_transformers_own_and_nothing_is_read(llava):
    input_ids_BT = torch.tensor([[1, IMAGE, IMAGE, 2], [IMAGE, 3, IMAGE, 4]])
    embeds_BTD, features_BND = torch.randn(2, 4, 8), torch.randn(2, 2, 8)
    with HostWaits() as waits:
        own = llava.get_placeholder_mask(input_ids_BT, inputs_embeds=embeds_BTD, image_features=features_BND)
    assert {what for _, what in waits.found} == {"a value is read"}
    with uncounted_image_tokens(llava), HostWaits() as waits:
        found = llava.get_placeholder_mask(input_ids_BT, inputs_embeds=embeds_BTD, image_features=features_BND)
        by_embedding = llava.get_input_embeddings()(input_ids_BT)
    assert not waits.found
    assert torch.equal(found.expand_as(embeds_BTD), own.expand_as(embeds_BTD))
    with uncounted_image_tokens(llava):
        assert torch.equal(
            llava.get_placeholder_mask(None, by_embedding, features_BND).expand_as(embeds_BTD),
            found.expand_as(embeds_BTD),
        )
    assert "get_placeholder_mask" not in vars(llava)
    with pytest.raises(ValueError, match="do not match"):
        llava.get_placeholder_mask(input_ids_BT, inputs_embeds=embeds_BTD, image_features=features_BND[:1])
