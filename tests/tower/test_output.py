"""What an encoder of transformers' `VisionEncoderDecoderModel` must give, and what it must not."""

import torch
from transformers.generation import GenerationMixin

from helpers import tiny_towers


def test_beam_search_can_repeat_what_generation_is_given(tiny_tower):
    with torch.no_grad():
        output = tiny_tower(tiny_towers.pixels(2))
    assert output.balance_loss is None
    assert output.attentions is None
    _, kwargs = GenerationMixin._expand_inputs_for_generation(
        expand_size=3, is_encoder_decoder=True, input_ids=torch.zeros(2, 1), encoder_outputs=output
    )
    assert kwargs["encoder_outputs"].last_hidden_state.shape[0] == 6


def test_training_has_the_balance_loss(tiny_tower):
    assert tiny_tower(tiny_towers.pixels(2)).balance_loss.shape == ()
