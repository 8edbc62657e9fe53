"""The trainer of LLaVA's stages: rates of its groups, the loss over micro-batches, the balance loss."""

import json

import pytest
import torch


def test_rates_and_decay_go_to_their_groups(make_trainer):
    ours = make_trainer("finetune")
    optimizer = ours.create_optimizer()
    names = {id(p): name for name, p in ours.model.named_parameters()}
    seen = set()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen.add(name)
            adapter = "multi_modal_projector" in name or "tove_fusion" in name
            assert group["lr"] == (0.005 if adapter else 0.01)
            assert adapter != (".lora_" in name)
            if name.endswith("bias"):
                assert group["weight_decay"] == 0
    assert seen == {name for name, p in ours.model.named_parameters() if p.requires_grad}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.01}


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_the_gate_has_a_rate_of_its_own_where_it_is_given(make_trainer, stage):
    ours = make_trainer(stage, "train.gate_lr=0.125")
    names = {id(p): name for name, p in ours.model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in ours.create_optimizer().param_groups for p in group["params"]}
    gate = {name for name in rates if ".gate." in name}
    assert len(gate) == 6, "norm, fc1 and fc2"
    assert {name for name, rate in rates.items() if rate == 0.125} == gate


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_the_fusion_has_a_rate_of_its_own_where_it_is_given_and_its_gate_too(make_trainer, stage):
    ours = make_trainer(stage, "train.fusion_lr=0.25", "train.gate_lr=0.125")
    names = {id(p): name for name, p in ours.model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in ours.create_optimizer().param_groups for p in group["params"]}
    for name, rate in rates.items():
        expected = 0.005 if "projector" in name else 0.01
        if "tove_fusion" in name:
            expected = 0.125 if ".gate." in name else 0.25
        assert rate == expected, name
    assert sum(rate == 0.25 for rate in rates.values()) > 6


def test_a_rate_of_the_fusion_changes_nothing_where_there_is_none(make_trainer):
    ours = make_trainer("pretrain", "train.fusion_lr=0.25", "model.vision_tower=clip")
    assert {group["lr"] for group in ours.create_optimizer().param_groups} == {0.005}


def first_gradients(make_trainer, *options):
    ours = make_trainer("finetune", "lora.lora_dropout=0.0", "train.max_grad_norm=1e9", *options)
    ours.run_gradients = {}
    step = type(ours.create_optimizer()).step

    def keep(self, *args, **kwargs):
        named = ours.model.named_parameters()
        ours.run_gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}
        ours.control.should_training_stop = True
        return step(self, *args, **kwargs)

    ours.optimizer.step = keep.__get__(ours.optimizer)
    tower = ours.model.get_base_model().model.vision_tower
    tower.tove_fusion.gate.expert_dropout = 0.0
    ours.train()
    return ours


def test_accumulation_gives_the_gradient_of_one_large_batch(make_trainer):
    """Samples of unequal length in unequal micro-batches: the mean is over tokens, not over micro-batches."""
    options = ["train.balance_loss_weight=0.0"]
    whole = first_gradients(
        make_trainer, *options, "train.per_device_train_batch_size=8", "train.gradient_accumulation_steps=1"
    )
    parts = first_gradients(
        make_trainer, *options, "train.per_device_train_batch_size=2", "train.gradient_accumulation_steps=4"
    )
    assert whole.run_gradients.keys() == parts.run_gradients.keys()
    largest = max(gradient.abs().max() for gradient in whole.run_gradients.values())
    assert largest > 1e-3
    for name, gradient in whole.run_gradients.items():
        torch.testing.assert_close(parts.run_gradients[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


def test_balance_loss_is_added_once_whatever_the_accumulation(make_trainer):
    """The share of a micro-batch is its balance loss x weight / accumulation steps."""
    with_balance, without = [], []
    for weight, kept in ((100.0, with_balance), (0.0, without)):
        ours = make_trainer(
            "pretrain", f"train.balance_loss_weight={weight}", "train.max_steps=1", "train.save_steps=99"
        )
        recorder_last = []
        inner = ours.agreement.add

        def spy(loss, sample_ids, kept=kept, inner=inner):
            kept.append(loss.item())
            inner(loss, sample_ids)

        ours.agreement.add = spy
        ours.meter.add = lambda inputs, output, r=recorder_last: r.append(output.balance_loss.item())
        ours.train()
        kept.append(recorder_last)
    assert len(with_balance[-1]) == 2  # accumulation steps
    for index, balance in enumerate(with_balance[-1]):
        assert balance > 0
        assert with_balance[index] - without[index] == pytest.approx(100.0 * balance / 2, rel=1e-3)


def test_text_only_batches_train_and_count_no_image(make_trainer, world):
    talks = [talk for talk in json.loads((world / "data" / "finetune.json").read_text()) if "image" not in talk]
    (world / "text.json").write_text(json.dumps(talks * 3))
    ours = make_trainer("finetune", f"data.train=[{world}/text.json]", "train.max_steps=1", "train.save_steps=99")
    sums = []
    inner = ours.meter.read

    def read(device):
        sums.append(ours.meter.state()["sums"])
        return inner(device)

    ours.meter.read = read
    ours.train()
    entropy, weight, _, batches, images, tokens = sums[0].tolist()
    assert (entropy, weight, images) == (0, 0, 0)
    assert batches == 2
    assert tokens > 0


def test_checkpointing_every_other_layer_recomputes_those_alone(make_trainer):
    losses = {}
    for every in (0, 1, 2):
        ours = make_trainer("finetune", "lora.lora_dropout=0.0", "train.max_steps=2", "train.save_steps=99",
                            f"train.gradient_checkpointing={str(every > 0).lower()}",
                            f"train.gradient_checkpointing_every_n_layers={every or 1}")  # fmt: skip
        layers = ours.model.get_base_model().model.language_model.layers
        runs = [0] * len(layers)
        for number, layer in enumerate(layers):

            def count(*_, number=number, runs=runs):
                runs[number] += 1

            layer.input_layernorm.register_forward_hook(count)
        ours.train()
        losses[every] = (runs, [line["loss"] for line in ours.state.log_history if "loss" in line])
    once = losses[0][0][0]
    assert losses[0][0] == [once, once]
    assert losses[1][0] == [2 * once, 2 * once]
    assert sorted(losses[2][0]) == [once, 2 * once]
    assert losses[0][1] == losses[1][1] == losses[2][1]
