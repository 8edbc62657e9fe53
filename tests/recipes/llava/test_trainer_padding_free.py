"""Training without padding: the same rows, the same steps and the same losses as with it, through the real trainer."""

import json
import logging

import pytest
import torch
from transformers import AutoTokenizer, StableLmConfig, StableLmForCausalLM

SAME = ["lora.lora_dropout=0.0", "train.save_steps=99", "train.max_steps=4", "train.save_merged=false"]


def losses(world, train, stage, name, *options):
    """Loss and balance loss of each step, and what was learnt."""
    folder = world / f"out-{name}"
    assert train(stage, *(option for option in SAME if stage == "finetune" or "train.save_merged" not in option),
                 *options, f"train.output_dir={folder}") == 0  # fmt: skip
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["loss"], line["balance_loss"], line["grad_norm"]) for line in lines]


@pytest.mark.parametrize("options", [[], ["train.gradient_checkpointing=true"]], ids=["plain", "checkpointing"])
def test_losses_are_those_of_padded_batches(world, train, options):
    """Expert dropout is on, one batch in a few is of texts alone, and gradients accumulate."""
    padded = losses(world, train, "finetune", "padded", "train.padding_free=false",
                    "train.logits_at_labels=false", *options)  # fmt: skip
    assert len(padded) == 4
    for name, switches in {
        "free": [],
        "at-labels": ["train.padding_free=false"],
        "all-logits": ["train.logits_at_labels=false"],
        **({"chunked": ["train.chunked_loss=true"]} if hasattr(torch.nn, "LinearCrossEntropyOptions") else {}),
    }.items():
        found = losses(world, train, "finetune", name, *switches, *options)
        torch.testing.assert_close(torch.tensor(found), torch.tensor(padded), rtol=2e-5, atol=1e-6, msg=name)


def test_stage_1_too(world, train):
    padded = losses(world, train, "pretrain", "padded", "train.padding_free=false", "train.logits_at_labels=false")
    torch.testing.assert_close(torch.tensor(losses(world, train, "pretrain", "free")), torch.tensor(padded),
                               rtol=2e-5, atol=1e-6)  # fmt: skip


def test_a_batch_has_no_padding_and_logits_only_at_labels(make_trainer):
    ours = make_trainer("finetune", *SAME, "train.per_device_train_batch_size=8")
    seen = []
    loss_of = ours.loss_of

    def spy(model, inputs, num_items):
        result = loss_of(model, inputs, num_items)
        seen.append((inputs, result[1]))
        return result

    ours.loss_of = spy
    ours.train()
    for inputs, outputs in seen:
        assert len(inputs["input_ids"]) == 1
        assert sum(inputs["row_lengths"]) == inputs["input_ids"].shape[1]
        assert len(inputs["row_lengths"]) >= 8
        assert outputs.logits.shape[1] == inputs["labels"].shape[1] < inputs["input_ids"].shape[1]
        assert inputs["labels"].ne(-100).all()
        assert outputs.past_key_values is None


def test_a_language_model_that_cannot_is_named_and_padded(world, train, make_trainer, caplog):
    tokenizer = AutoTokenizer.from_pretrained(world / "llm")
    torch.manual_seed(0)
    config = StableLmConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    StableLmForCausalLM(config).save_pretrained(world / "stablelm")
    tokenizer.save_pretrained(world / "stablelm")
    with caplog.at_level(logging.WARNING):
        ours = make_trainer("pretrain", f"model.llm={world / 'stablelm'}")
    assert (
        "batches are padded although `train.padding_free` is true: the language model `stablelm` is not" in caplog.text
    )
    assert not ours.padding_free
    assert not ours.data_collator.padding_free
