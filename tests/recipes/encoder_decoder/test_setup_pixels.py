"""The base model learns the same, bit for bit, from images as bytes, also from random crops."""

from helpers.training import metrics


def test_it_learns_the_same(base_world, train_base):
    for name in ("true", "false"):
        options = [f"train.pixels_as_bytes={name}", f"train.output_dir={base_world}/{name}", "train.max_steps=3"]
        assert train_base("pretrain_base", *options, "train.save_steps=99", "data.augment=true") == 0
    assert metrics(base_world / "true") == metrics(base_world / "false")
