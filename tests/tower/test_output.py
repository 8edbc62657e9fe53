"""What transformers' `VisionEncoderDecoderModel` asks of its encoder: `attentions`, and in generation a batch axis."""

import torch

from helpers import tiny_towers


def test_whatever_generation_is_given_has_a_batch_axis(tiny_tower):
    with torch.no_grad():
        output = tiny_tower(tiny_towers.pixels(2))
    assert output.balance_loss is None
    assert output.attentions is None
    assert {value.shape[0] for value in output.values() if isinstance(value, torch.Tensor)} == {2}


def test_training_has_the_balance_loss(tiny_tower):
    assert tiny_tower(tiny_towers.pixels(2)).balance_loss.shape == ()
