"""The learning rates of a run that goes on."""

import math

from helpers.training import metrics


def test_a_finished_run_that_is_made_longer_goes_on_at_the_rates_of_its_new_schedule(world, train):
    """Cosine, without warm-up: base (1 + cos(pi step / steps)) / 2, where `step` counts from 0."""
    options = ["train.warmup_ratio=0", "train.lr_scheduler_type=cosine", "train.save_steps=2"]
    assert train("pretrain", *options, "train.max_steps=2") == 0
    assert train("pretrain", *options, "train.max_steps=6") == 0
    rates = [line["learning_rate/projector"] for line in metrics(world / "out-pretrain")]
    expected = [0.005 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(2, 6)]
    assert all(abs(a - b) < 1e-9 for a, b in zip(rates[2:], expected, strict=True))
    assert rates[1] == 0.0025  # of the first schedule, half way
