"""The trainer on one rank with plain torch, inside this process: losses, gradients, order, guards, checkpoints."""

import errno
import json
import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers.training import metrics, same, weights
from tove_lvlm.recipes.llava import FINETUNE, trainer
from tove_lvlm.train import checkpoint, loop
from tove_lvlm.train.stage import load_run

# ---- what is trained ----


def test_stage_one_trains_projector_and_fusion_only(make_trainer):
    names = {name for name, p in make_trainer("pretrain").model.named_parameters() if p.requires_grad}
    assert names
    assert all(n.startswith(("model.multi_modal_projector.", "model.vision_tower.tove_fusion.")) for n in names)


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


def test_full_run_moves_what_is_trained_and_nothing_else(world, train):
    assert train("finetune") == 0
    out = world / "out-finetune"
    after = weights(out)
    llm = load_file(world / "llm" / "model.safetensors")
    clip = load_file(world / "tower" / "clip" / "model.safetensors")
    moved = [k for k in llm if not torch.equal(llm[k], after[f"language_model.{k}"][: len(llm[k])])]
    assert moved
    assert all(k.endswith("_proj.weight") for k in moved)  # LoRA's targets only
    held = {k.removeprefix("vision_tower.clip."): v for k, v in after.items() if k.startswith("vision_tower.clip.")}
    assert held
    ours = {k.removeprefix("vision_model."): v for k, v in held.items()}
    theirs = {k.removeprefix("vision_model."): v for k, v in clip.items() if "position_ids" not in k}
    assert same(ours, theirs)
    assert sum(tensor.abs().sum() for key, tensor in after.items() if "transfers" in key) > 0
    lines = metrics(out)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        masses = [value for key, value in line.items() if key.startswith("gate_mass/")]
        assert len(masses) == 4
        assert sum(masses) == pytest.approx(1, abs=1e-4)
        assert 0 < line["gate_entropy"] <= np.log(4) + 1e-4
        assert {"loss", "learning_rate/projector", "learning_rate/language_model", "balance_loss"} <= line.keys()
    # The rates are those that the steps were made with: warm-up from 0, then down; the projector at half.
    assert lines[0]["learning_rate/language_model"] == 0
    assert all(
        line["learning_rate/projector"] == pytest.approx(line["learning_rate/language_model"] / 2) for line in lines
    )
    assert load_run(FINETUNE, out / "run.yaml").train.learning_rate == 0.01


# ---- loss ----


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
        inner = ours._agree

        def spy(loss, kept=kept, inner=inner):
            kept.append(loss.item())
            inner(loss)

        ours._agree = spy
        ours.meter.add = lambda inputs, output, r=recorder_last: r.append(output.balance_loss.item())
        ours.train()
        kept.append(recorder_last)
    assert len(with_balance[-1]) == 2  # accumulation steps
    for index, balance in enumerate(with_balance[-1]):
        assert balance > 0
        assert with_balance[index] - without[index] == pytest.approx(100.0 * balance / 2, rel=1e-3)


# ---- order ----


class Counting:
    def __init__(self, n):
        self.n, self.epoch = n, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.n

    def __iter__(self):
        return iter(range(self.n))


@pytest.mark.parametrize(("n", "batch", "world_size"), [(24, 2, 2), (25, 4, 3), (1, 2, 2), (7, 2, 1)])
def test_ranks_share_one_order_and_see_all_samples(n, batch, world_size):
    ranks = [list(loop.RankBatches(Counting(n), batch, rank, world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert all(len(b) == batch for batches in ranks for b in batches)
    joined = [i for step in zip(*ranks, strict=True) for b in step for i in b]
    assert joined[:n] == list(range(n))
    assert len(ranks[0]) == len(loop.RankBatches(Counting(n), batch, 0, world_size))


def test_workers_change_neither_order_nor_result(world, train):
    for workers in (0, 2):
        options = [f"train.dataloader_num_workers={workers}", f"train.output_dir={world}/w{workers}"]
        assert train("pretrain", *options, "train.max_steps=3", "train.save_steps=99") == 0
    assert metrics(world / "w0") == metrics(world / "w2")
    assert same(weights(world / "w0"), weights(world / "w2"))


# ---- resume ----


def test_resumed_run_is_bit_identical(world, train, monkeypatch):
    """Stopped after step 3 of 6, between two log lines and inside an epoch, with LoRA and expert dropout drawing."""
    options = ["train.logging_steps=2", "train.save_steps=3", "train.per_device_train_batch_size=3"]
    assert train("finetune", *options, f"train.output_dir={world}/whole") == 0
    inner = checkpoint.save

    def save_and_die(state, record, *args):
        path = inner(state, record, *args)
        if record.trainer_state.global_step == 3:
            raise KeyboardInterrupt
        return path

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        train("finetune", *options, f"train.output_dir={world}/parts")
    monkeypatch.setattr(checkpoint, "save", inner)
    assert not (world / "parts" / "model.safetensors").exists()
    assert train("finetune", *options, f"train.output_dir={world}/parts") == 0
    assert metrics(world / "parts") == metrics(world / "whole")
    assert same(weights(world / "parts"), weights(world / "whole"))
    # Once more when all is done: no step is added, the same files come out.
    assert train("finetune", *options, f"train.output_dir={world}/parts") == 0
    assert metrics(world / "parts") == metrics(world / "whole")
    assert same(weights(world / "parts"), weights(world / "whole"))


def test_checkpoints_are_complete_and_few(world, train):
    assert train("finetune") == 0
    out = world / "out-finetune"
    found = checkpoint.checkpoints(out)
    assert [path.name for path in found] == ["checkpoint-4", "checkpoint-6"]  # save_total_limit 2
    assert not [p.name for p in out.iterdir() if p.name.startswith(".")]
    held = load_file(found[-1] / "trainable.safetensors")
    kinds = {"lora_A", "lora_B", "multi_modal_projector", "tove_fusion"}
    assert all(any(kind in name for name in held) for kind in kinds)
    assert not any("clip" in name or "embed_tokens" in name for name in held)
    state = torch.load(found[-1] / "optimizer.pt", weights_only=True)["state"]
    assert len(state) == len(held)


def test_checkpoint_cut_short_is_passed_over(world, train, caplog):
    assert train("pretrain") == 0
    before = weights(world / "out-pretrain")
    newest = checkpoint.checkpoints(world / "out-pretrain")[-1]
    with open(newest / "optimizer.pt", "r+b") as file:
        file.truncate(100)
    assert checkpoint.checkpoints(world / "out-pretrain")[-1].name == "checkpoint-4"
    assert train("pretrain") == 0  # goes on from step 4
    assert same(weights(world / "out-pretrain"), before)


def test_leftovers_of_a_kill_are_cleared(world, train):
    out = world / "out-pretrain"
    (out / ".writing-checkpoint-2").mkdir(parents=True)
    (out / ".writing-checkpoint-2" / "optimizer.pt").write_bytes(b"half")
    assert train("pretrain", "train.max_steps=2") == 0
    assert not [p.name for p in out.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("train.seed=7", "train.seed"),
        ("train.per_device_train_batch_size=4", "train.per_device_train_batch_size"),
        ("model.vision_tower=clip", "model.vision_tower"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(world, train, capfd, option, key):
    assert train("pretrain", "train.max_steps=2") == 0
    assert train("pretrain", "train.max_steps=2", option) == 2
    assert f"`{key}`" in capfd.readouterr().err.splitlines()[-1]


def test_resume_false_starts_over_and_keeps_the_old_ones(world, train):
    assert train("pretrain", "train.max_steps=2") == 0
    assert train("pretrain", "train.max_steps=2", "train.seed=9", "train.resume=false") == 0
    out = world / "out-pretrain"
    assert (out / "superseded-1" / "checkpoint-2" / checkpoint.MANIFEST).is_file()
    assert [line["step"] for line in metrics(out)] == [1, 2]
    assert checkpoint.read_meta(out / "checkpoint-2")["identity"]["train.seed"] == 9


# ---- guards ----


def test_full_disk_leaves_the_previous_checkpoint(world, train, monkeypatch, capfd):
    inner = torch.save

    def full(value, path, *args, **kwargs):
        if "checkpoint-4" in str(path) and "optimizer" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return inner(value, path, *args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    assert train("pretrain") == 1
    last = capfd.readouterr().err.splitlines()[-1]
    out = world / "out-pretrain"
    assert "step 4" in last
    assert "No space left" in last
    assert f"{out / 'checkpoint-2'}" in last
    assert [path.name for path in checkpoint.checkpoints(out)] == ["checkpoint-2"]
    assert not (out / ".writing-checkpoint-4").exists()
    monkeypatch.setattr(torch, "save", inner)
    assert train("pretrain") == 0
    assert train("pretrain", f"train.output_dir={world}/clean") == 0
    assert same(weights(out), weights(world / "clean"))


def test_nan_stops_with_step_and_samples(world, train, monkeypatch, capfd):
    inner = trainer.ToVETrainer._agree

    def poisoned(self, loss):
        inner(self, loss * float("nan") if self.state.global_step == 4 else loss)

    monkeypatch.setattr(trainer.ToVETrainer, "_agree", poisoned)
    assert train("pretrain", "train.save_steps=2") == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert "nan at step 5" in last
    assert "samples on this rank: c" in last
    assert [path.name for path in checkpoint.checkpoints(world / "out-pretrain")] == ["checkpoint-2", "checkpoint-4"]
    assert not (world / "out-pretrain" / "projector.safetensors").exists()


def test_weights_that_are_no_numbers_are_not_saved(world, train, monkeypatch, capfd):
    step = torch.optim.AdamW.step

    def ruin(self, *args, **kwargs):
        out = step(self, *args, **kwargs)
        ruin.calls += 1
        if ruin.calls == 4:
            self.param_groups[0]["params"][0].data.fill_(float("inf"))
        return out

    ruin.calls = 0
    monkeypatch.setattr(torch.optim.AdamW, "step", ruin)
    assert train("pretrain") == 1
    assert "a weight is not a finite number" in capfd.readouterr().err.splitlines()[-1]
    assert [path.name for path in checkpoint.checkpoints(world / "out-pretrain")] == ["checkpoint-2"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_the_same_command_goes_on(world, train, monkeypatch, signum):
    inner = trainer.ToVETrainer.compute_loss

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 2 and not interrupted.sent:
            interrupted.sent = True
            os.kill(os.getpid(), signum)
            os.kill(os.getpid(), signal.SIGTERM)  # the launcher's, on top of the terminal's
        return inner(self, *args, **kwargs)

    interrupted.sent = False
    monkeypatch.setattr(trainer.ToVETrainer, "compute_loss", interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert train("pretrain", "train.save_steps=50") == 128 + signum
    assert signal.getsignal(signal.SIGINT) is before
    out = world / "out-pretrain"
    assert [path.name for path in checkpoint.checkpoints(out)] == ["checkpoint-3"]
    assert not (out / "projector.safetensors").exists()
    assert train("pretrain", "train.save_steps=50") == 0
    assert train("pretrain", f"train.output_dir={world}/whole", "train.save_steps=50") == 0
    assert metrics(out) == metrics(world / "whole")
    assert same(weights(out), weights(world / "whole"))


def test_broken_sample_ends_with_code_2_and_its_name(world, train, capfd):
    bad = json.loads((world / "data" / "pretrain.json").read_text())
    bad[5]["conversations"][0]["from"] = "robot"
    (world / "bad.json").write_text(json.dumps(bad))
    assert train("pretrain", f"data.train=[{world}/bad.json]") == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert "bad.json" in last
    assert "c5" in last


def test_text_only_batches_train_and_count_no_image(make_trainer, world):
    talks = [talk for talk in json.loads((world / "data" / "finetune.json").read_text()) if "image" not in talk]
    (world / "text.json").write_text(json.dumps(talks * 3))
    ours = make_trainer("finetune", f"data.train=[{world}/text.json]", "train.max_steps=1", "train.save_steps=99")
    sums = []
    inner = ours.meter.read

    def read(device):
        sums.append(ours.meter.sums.clone())
        return inner(device)

    ours.meter.read = read
    ours.train()
    entropy, weight, _, batches, images, tokens = sums[0].tolist()
    assert (entropy, weight, images) == (0, 0, 0)
    assert batches == 2
    assert tokens > 0


def test_baseline_runs_through_the_same_code(world, train):
    assert train("pretrain", "model.vision_tower=clip", "train.max_steps=2") == 0
    out = world / "out-pretrain"
    assert all(name.startswith("multi_modal_projector.") for name in weights(out))
    assert not any(key.startswith("gate") for line in metrics(out) for key in line)
    options = ["model.vision_tower=clip", f"model.pretrain_mm_mlp_adapter={out}", "train.max_steps=2"]
    assert train("finetune", *options) == 0
    from transformers import LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(world / "out-finetune")
    assert type(model.model.vision_tower).__name__ == "CLIPVisionModel"
    assert (model.config.vision_feature_layer, model.config.vision_feature_select_strategy) == (-2, "default")
