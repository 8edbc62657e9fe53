"""What the base model's runs train, what they write, and what they say of a YAML that does not fit."""

import json

import pytest
import torch
from safetensors.torch import load_file

from helpers.training import losses, metrics, same, weights
from tove_lvlm.checkpoints import open_checkpoint
from tove_lvlm.inference.chat import Chat


def test_a_run_moves_what_it_trains_and_nothing_else(base_world, train_base):
    assert train_base("pretrain_base") == 0
    out = base_world / "out-pretrain_base"
    after = weights(out)
    before = {f"decoder.{name}": t for name, t in load_file(base_world / "decoder" / "model.safetensors").items()}
    assert before
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items() if name in after)
    assert any("crossattention" in name for name in after)
    clip = load_file(base_world / "tower" / "clip" / "model.safetensors")
    held = {name.removeprefix("encoder.clip."): t for name, t in after.items() if name.startswith("encoder.clip.")}
    theirs = {name.removeprefix("vision_model."): t for name, t in clip.items() if "position_ids" not in name}
    assert same({name.removeprefix("vision_model."): t for name, t in held.items()}, theirs)
    assert sum(t.abs().sum() for name, t in after.items() if "tove_fusion.shared_out" in name) > 0
    lines = metrics(out)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        masses = [value for key, value in line.items() if key.startswith("gate_mass/")]
        assert sum(masses) == pytest.approx(1, abs=1e-4)
        assert line["learning_rate/fusion"] == pytest.approx(line["learning_rate/decoder"] / 2)
    assert json.loads((out / "tove_model.json").read_text())["tower"]["experts"] == [
        "depth",
        "normals",
        "shapes",
        "cnn",
    ]


def test_a_finished_run_is_asked_and_goes_on(base_world, train_base):
    assert train_base("pretrain_base", "train.max_steps=2") == 0
    first = base_world / "out-pretrain_base"
    assert open_checkpoint(first).kind == "encoder_decoder"
    chat = Chat.load(first, device="cpu")
    assert isinstance(chat.ask(base_world / "data" / "images" / "0.png", ""), str)
    assert train_base("finetune_base", "train.max_steps=2", "model.detached=[cnn]") == 0
    tuned = open_checkpoint(base_world / "out-finetune_base")
    assert tuned.tower.attached_names == ["depth", "normals", "shapes"]
    a, b = weights(first), weights(base_world / "out-finetune_base")
    assert same(
        {name: t for name, t in a.items() if ".tove_fusion." in name},
        {name: t for name, t in b.items() if ".tove_fusion." in name},
    )
    assert not torch.equal(*(w["decoder.roberta.encoder.layer.0.output.dense.weight"] for w in (a, b)))


def test_the_baseline_runs_through_the_same_code(base_world, train_base):
    assert train_base("pretrain_base", "model.vision_tower=clip", "train.max_steps=2") == 0
    out = base_world / "out-pretrain_base"
    assert not any("experts" in name or ".gate." in name for name in weights(out))
    assert not any(key.startswith("gate_mass") for line in metrics(out) for key in line)
    assert open_checkpoint(out).tower.expert_names == []


def test_gradient_checkpointing_changes_no_loss(base_world, train_base):
    for name, on in (("plain", "false"), ("recomputed", "true")):
        options = [f"train.output_dir={base_world}/{name}", f"train.gradient_checkpointing={on}", "train.max_steps=2"]
        assert train_base("pretrain_base", *options) == 0
    plain, recomputed = (losses(base_world / name) for name in ("plain", "recomputed"))
    assert recomputed == pytest.approx(plain, rel=1e-5)


def test_an_interrupted_run_goes_on_bit_for_bit(base_world, train_base):
    assert train_base("pretrain_base", f"train.output_dir={base_world}/whole") == 0
    parts = f"train.output_dir={base_world}/parts"
    assert train_base("pretrain_base", parts, "train.save_total_limit=9") == 0
    for step in (5, 6):
        path = base_world / "parts" / f"checkpoint-{step}"
        if path.exists():
            path.rename(base_world / f"gone-{step}")
    (base_world / "parts" / "model.safetensors").unlink()
    assert train_base("pretrain_base", parts, "train.save_total_limit=9") == 0
    assert same(weights(base_world / "parts"), weights(base_world / "whole"))
    assert metrics(base_world / "parts") == metrics(base_world / "whole")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data.mix=[]"], "`data.mix` is empty"),
        (["data.mix.0.weight=0"], "`data.mix[0].weight` is 0.0; expected above 0"),
        (["data.mix.0.task=words"], "valid: caption | vqa | statement"),
        (["data.mix.1.prefix=A picture of"], "`prefix` is for captions"),
        (["data.mix.1.format=coco"], "expected llava or vqav2 or webdataset"),
        (["data.mix.3.files=['./data/shards/{00000..00002}.tar']"], "file `./data/shards/00002.tar` does not exist"),
        (["data.mix.0.files=[./nowhere.json]"], "`data.mix[0].files[0]`"),
        (["train.label_smoothing=1"], "`train.label_smoothing` is 1"),
        (["train.trainable=everything"], "valid: fusion_and_cross_attention | language_model | all_but_backbones"),
        (["model.pretrained=./decoder", "model.decoder=null", "model.tower=null"], "holds no base model"),
        (["model.vision_tower=tovee"], "expected `tove`, `clip` or a folder"),
    ],
)
def test_a_yaml_that_does_not_fit(base_world, train_base, capfd, options, message):
    assert train_base("pretrain_base", *options) == 2
    assert message in capfd.readouterr().err.splitlines()[-1]
    assert not (base_world / "out-pretrain_base").exists()


def talk(question: str, answer: str) -> list[dict]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"id": "x", "conversations": talk("a", "b")}, "'x': the sample has a text and no image"),
        (
            {"id": "w", "image": "0.png", "conversations": [*talk("<image>", "a"), *talk("b", "c")]},
            "'w': a caption is one text, the conversation has 2",
        ),
        ({"id": "y", "image": "0.png", "conversations": talk("<image>", " ")}, "'y': a question has no answer"),
        (
            {"id": "z", "image": "0.png", "conversations": talk("<image>", "red " * 99)},
            "'z': a text of 101 tokens is longer than the decoder's context of 62",
        ),
    ],
)
def test_a_broken_sample_is_named(base_world, train_base, capfd, sample, message):
    (base_world / "a.json").write_text(json.dumps([sample]))
    assert train_base("pretrain_base", "data.mix.0.files=[./a.json]", "data.mix.0.weight=9") != 0
    assert message in capfd.readouterr().err.splitlines()[-1]
