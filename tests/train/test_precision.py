"""bfloat16 without DeepSpeed trains as it does with it."""

import pytest
import torch
from safetensors.torch import load_file

from helpers.training import metrics, weights
from tove_lvlm.train.precision import float32_trainables

USUAL = ["train.learning_rate=1e-3", "train.mm_projector_lr=1e-3", "train.weight_decay=0"]


def moved(world, train, bf16: bool) -> float:
    """Share of the projector's and the gate's weights that 6 steps change."""
    out = world / f"out-{bf16}"
    options = [*USUAL, f"train.bf16={str(bf16).lower()}", f"train.output_dir={out}"]
    assert train("pretrain", *options) == 0
    first, last = (load_file(out / f"checkpoint-{step}" / "trainable.safetensors") for step in (4, 6))
    assert {tensor.dtype for tensor in last.values()} == {torch.float32}
    same = sum((first[name] == last[name]).sum().item() for name in first)
    return 1 - same / sum(tensor.numel() for tensor in first.values())


def test_as_many_weights_move_as_in_float32(world, train):
    in_float32, in_bf16 = moved(world, train, False), moved(world, train, True)
    assert in_float32 > 0.9
    assert in_bf16 > in_float32 - 0.02
    losses = [[line["loss"] for line in metrics(world / f"out-{bf16}")] for bf16 in (False, True)]
    assert all(abs(a - b) < 0.02 * a for a, b in zip(*losses, strict=True))
    assert {tensor.dtype for tensor in weights(world / "out-True").values()} == {torch.bfloat16}


@pytest.mark.full
def test_resumed_it_is_bit_identical(world, train):
    bf16 = [*USUAL, "train.bf16=true", "train.per_device_train_batch_size=2"]
    assert train("finetune", *bf16, f"train.output_dir={world}/whole") == 0
    assert train("finetune", *bf16, f"train.output_dir={world}/parts") == 0
    newest = world / "parts" / "checkpoint-6"
    newest.rename(world / "gone")
    before = metrics(world / "whole")
    assert train("finetune", *bf16, f"train.output_dir={world}/parts") == 0
    assert metrics(world / "parts") == before
    a, b = weights(world / "whole"), weights(world / "parts")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_frozen_weights_keep_their_dtype_and_trained_ones_get_it_back():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)).bfloat16()
    model[0].requires_grad_(False)
    with float32_trainables(model, needed=True):
        assert (model[0].weight.dtype, model[1].weight.dtype) == (torch.bfloat16, torch.float32)
    assert model[1].weight.dtype == torch.bfloat16
    with float32_trainables(model, needed=False):
        assert model[1].weight.dtype == torch.bfloat16
