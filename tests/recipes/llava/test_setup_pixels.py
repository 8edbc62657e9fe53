"""Training on bytes is training on the image processor's pixels: the same bits."""

import pytest
import torch

from helpers.training import metrics


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_both_stages_learn_the_same(world, train, stage):
    options = ["train.max_steps=3", "train.save_steps=99"]
    for name in ("true", "false"):
        assert train(stage, f"train.pixels_as_bytes={name}", f"train.output_dir={world}/{name}", *options) == 0
    assert metrics(world / "true") == metrics(world / "false")


def test_a_batch_is_a_quarter_as_large(make_trainer):
    sizes, seen = {}, {}
    for name in ("true", "false"):
        ours = make_trainer("pretrain", f"train.pixels_as_bytes={name}")
        ours._rank_batches.set_epoch(0)
        pixels = next(iter(ours.get_train_dataloader()))["pixel_values"]
        sizes[pixels.dtype] = pixels.nbytes
        seen[name] = ours._prepare_inputs({"pixel_values": pixels})["pixel_values"]
    assert sizes[torch.float32] == 4 * sizes[torch.uint8]
    assert torch.equal(seen["true"], seen["false"])
