"""LAVIS's own Config, tasks and runner on miniature pictures: both stages, captions, checkpoints, what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from helpers import tiny_towers
from helpers.paths import ROOT
from tove_lvlm.config import UserError
from tove_lvlm.hosts.lavis.__main__ import main
from tove_lvlm.hosts.lavis.run import run

PROJECT = ROOT / "projects" / "lavis"
GATE = "visual_encoder.tower.tove_fusion.gate.fc2.weight"
FUSION = "visual_encoder.tower.tove_fusion."


def options(world, output: Path, split: str, **others: object) -> list[str]:
    """The project's YAML for the tiny tower and the small data."""
    data = {"train": "train/pretrain.json", "test": "heldout/captions.jsonl"}[split]
    part = "datasets.llava_caption.build_info"
    chosen = {
        "model.vit_model": f"tove:{world.tower}",
        "model.image_size": tiny_towers.SIZE,
        "model.bert": world.out / "bert",
        f"{part}.annotations.{split}.storage": world.out / data,
        f"{part}.images.{split}": world.out / Path(data).parent / "images",
        "run.output_dir": output,
        "run.batch_size_train": 4,
        "run.max_epoch": 1,
        **others,
    }
    return [f"{key}={value}" for key, value in chosen.items()]


@pytest.fixture(scope="session")
def stage1(lavis, world, tmp_path_factory) -> SimpleNamespace:
    """A finished run of blip2_stage1.yaml: runner, its checkpoint's file, and the weights before training."""
    from lavis.models.blip2_models.blip2_qformer import Blip2Qformer

    started = {}
    forward = Blip2Qformer.forward

    def remember(self, samples):
        if not started:
            started.update({name: tensor.clone() for name, tensor in self.state_dict().items()})
        return forward(self, samples)

    Blip2Qformer.forward = remember
    try:
        chosen = options(world, tmp_path_factory.mktemp("stage1"), "train")
        runner = run("train", PROJECT / "blip2_stage1.yaml", chosen)
    finally:
        Blip2Qformer.forward = forward
    return SimpleNamespace(runner=runner, file=Path(runner.output_dir) / "checkpoint_0.pth", started=started)


@pytest.fixture(scope="session")
def stage2(lavis, world, stage1, tmp_path_factory) -> SimpleNamespace:
    chosen = options(
        world,
        tmp_path_factory.mktemp("stage2"),
        "train",
        **{"model.pretrained": stage1.file, "model.opt_model": world.out / "opt"},
    )
    runner = run("train", PROJECT / "blip2_opt.yaml", chosen)
    return SimpleNamespace(runner=runner, file=Path(runner.output_dir) / "checkpoint_0.pth")


def test_the_runner_trains_what_is_to_be_trained_and_nothing_else(stage1):
    model = stage1.runner.unwrap_dist_model(stage1.runner.model)
    named = model.named_parameters(remove_duplicate=False)  # tied weights have two names
    now, trained = model.state_dict(), {name for name, parameter in named if parameter.requires_grad}
    moved = {name for name in now if not torch.equal(now[name], stage1.started[name])}
    assert moved <= trained
    assert {name for name in trained if name.startswith(("Qformer", "ln_vision"))} & moved
    # Zero start: fc2 of each transfer moves in the first step, and all of gate and transfer after it.
    fusion = {name for name in trained if name.startswith(FUSION)}
    assert fusion == {name for name in now if name.startswith(FUSION)}
    assert fusion <= moved
    assert not any(name.startswith(("visual_encoder.tower.clip", "visual_encoder.tower.experts")) for name in moved)


def test_lavis_log_has_the_steps_loss(stage1):
    lines = (Path(stage1.runner.output_dir) / "log.txt").read_text().splitlines()
    assert float(json.loads(lines[-1])["train_loss"]) > 0


def test_gradients(stage1, world):
    model = stage1.runner.unwrap_dist_model(stage1.runner.model).train()
    samples = next(iter(stage1.runner.train_loader))
    from tove_lvlm.hosts.lavis import machine

    with machine.one_process():
        model(samples)["loss"].backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().sum())}
    # What BLIP-2 itself does not reach: keys' biases cancel in the soft-max.
    assert not {name for name in without if not name.endswith("key.bias")}, without
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    model.zero_grad()


def test_the_checkpoint_holds_tove_fusion_and_no_frozen_parameter(stage1):
    saved = torch.load(stage1.file)["model"]  # weights_only: nothing but tensors and plain values in it
    model = stage1.runner.unwrap_dist_model(stage1.runner.model)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert {name for name in model.state_dict() if name.startswith(FUSION)} <= set(saved)
    assert not frozen & set(saved)


def fresh(lavis, world, **settings):
    from lavis.models import Blip2Qformer

    torch.manual_seed(9)
    return Blip2Qformer(
        vit_model=f"tove:{world.tower}", img_size=tiny_towers.SIZE, num_query_token=8, max_txt_len=40, **settings
    ).eval()


def features(model) -> torch.Tensor:
    return model.extract_features(
        {"image": tiny_towers.pixels(), "text_input": ["a red box", "a cone"]}
    ).multimodal_embeds


def test_the_checkpoint_loads_back(lavis, world, bert, stage1):
    trained = stage1.runner.unwrap_dist_model(stage1.runner.model).eval()
    model = fresh(lavis, world)
    assert not torch.equal(features(model), features(trained))
    model.load_checkpoint(str(stage1.file))
    assert torch.equal(features(model), features(trained))


def test_resume(lavis, world, stage1, tmp_path):
    """Possible because the tower's frozen parts are its own; LAVIS itself cannot resume a run with a frozen encoder."""
    others = {"run.resume_ckpt_path": stage1.file, "run.max_epoch": 2}
    runner = run("train", PROJECT / "blip2_stage1.yaml", options(world, tmp_path, "train", **others))
    assert runner.start_epoch == 1
    assert [file.name for file in Path(runner.output_dir).glob("*.pth")] == ["checkpoint_1.pth"]
    assert runner.optimizer.state[runner.optimizer.param_groups[0]["params"][0]]["step"] == 6  # 2 epochs of 3


@pytest.mark.parametrize("how", ["missing", "unexpected", "other width"])
@pytest.mark.parametrize("through", ["load_checkpoint", "load_from_pretrained"])
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(lavis, world, bert, stage1, tmp_path, how, through):
    content = torch.load(stage1.file)
    if how == "missing":
        del content["model"][GATE]
    elif how == "unexpected":
        content["model"]["visual_encoder.blocks.0.norm1.weight"] = torch.zeros(3)
    else:
        content["model"]["ln_vision.weight"] = torch.zeros(1408)
    file = tmp_path / "spoilt.pth"
    torch.save(content, file)
    said = {"missing": GATE, "unexpected": "visual_encoder.blocks.0.norm1.weight", "other width": "ln_vision.weight"}
    with pytest.raises(UserError, match=rf"checkpoint `{file}`.*{said[how]}"):
        getattr(fresh(lavis, world), through)(str(file))


def test_resume_from_a_checkpoint_that_does_not_fit(lavis, world, stage1, tmp_path):
    content = torch.load(stage1.file)
    del content["model"][GATE]
    torch.save(content, tmp_path / "spoilt.pth")
    others = {"run.resume_ckpt_path": tmp_path / "spoilt.pth", "run.max_epoch": 2}
    with pytest.raises(UserError, match=rf"checkpoint `{tmp_path}/spoilt.pth`: 1 keys of tove_fusion.*{GATE}"):
        run("train", PROJECT / "blip2_stage1.yaml", options(world, tmp_path, "train", **others))


def test_stage2_goes_on_with_stage1s_gate(stage1, stage2):
    before, after = torch.load(stage1.file)["model"], torch.load(stage2.file)["model"]
    assert {name for name in before if name.startswith(FUSION)} == {name for name in after if name.startswith(FUSION)}
    assert not torch.equal(before[GATE], after[GATE])
    assert (before[GATE] - after[GATE]).abs().max() < 0.01, "three steps away from stage 1, not from the start"
    # Tied to the words' embedding, so that LAVIS does not see that it is frozen.
    assert {name for name in after if name.startswith("opt_model")} == {"opt_model.lm_head.weight"}
    model = stage2.runner.unwrap_dist_model(stage2.runner.model)
    assert not any(parameter.requires_grad for parameter in model.opt_model.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_lavis_writes_captions_of_held_out_pictures(lavis, world, stage2, tmp_path):
    others = {"model.finetuned": stage2.file, "model.opt_model": world.out / "opt", "run.max_len": 12}
    runner = run("evaluate", PROJECT / "blip2_opt_caption.yaml", options(world, tmp_path, "test", **others))
    written = json.loads((Path(runner.output_dir) / "result" / "test_epochbest.json").read_text())
    assert [row["image_id"] for row in written] == [0, 1, 2, 3]
    assert all(row["caption"] for row in written)
    model = runner.unwrap_dist_model(runner.model).eval()
    samples = next(iter(runner.dataloaders["test"]))
    again = model.generate(samples, num_beams=3, max_length=12, min_length=8)
    assert again == [row["caption"] for row in written]
    assert len(model.generate(samples, use_nucleus_sampling=True, num_captions=2, max_length=5)) == 8


def test_stage1_captions(stage1):
    """The Q-Former's own decoder: query tokens and images go once for each picture, whatever the number of beams."""
    model = stage1.runner.unwrap_dist_model(stage1.runner.model).eval()
    samples = {"image": tiny_towers.pixels()}
    both = model.generate(samples, num_beams=3, max_length=12, min_length=4)
    assert len(both) == 2
    alone = [
        model.generate({"image": image[None]}, num_beams=3, max_length=12, min_length=4)[0]
        for image in tiny_towers.pixels()
    ]
    assert both == alone


# ---- what the user gives wrong ----


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.arch=blip3", "`model.arch`: LAVIS knows no `blip3`; did you mean `blip2`"),
        ("run.task=caption", "`run.task`: LAVIS knows no `caption`; did you mean `captioning`"),
        ("datasets.llava_captions.x=1", "`datasets`: LAVIS knows no `llava_captions`; did you mean `llava_caption`"),
        ("model.vit_model=tove:nosuch.yaml", "`model.vit_model: tove:nosuch.yaml`: .*does not exist"),
        ("model.pretrained=???", "`model.pretrained` is not stated; give it with --options model.pretrained"),
        ("datasets.llava_caption.build_info.images.train=/no/images", "no folder `/no/images`"),
        ("datasets.llava_caption.build_info.annotations.train.storage=no.json", "annotation file `no.json` does not"),
    ],
)
def test_one_line_and_exit_code_2(lavis, world, tmp_path, capsys, option, message):
    import re

    given = [*options(world, tmp_path, "train"), option]
    with pytest.raises(SystemExit) as stop:
        main(["train", "--cfg-path", str(PROJECT / "blip2_stage1.yaml"), "--options", *given])
    assert stop.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert re.search(message, last), last


def test_several_processes_on_the_cpu_are_refused(lavis, world, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="with `run.device: cpu` start one, without torchrun"):
        run("train", PROJECT / "blip2_stage1.yaml", options(world, tmp_path, "train"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a CUDA device")
def test_no_cuda_device(lavis, world, tmp_path):
    with pytest.raises(UserError, match="`run.device` is `cuda` and there is no CUDA device here"):
        run("train", PROJECT / "blip2_stage1.yaml", options(world, tmp_path, "train", **{"run.device": "cuda"}))


def test_captions_are_read(tmp_path):
    from tove_lvlm.hosts.lavis.data import read_captions

    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a cone"}]
    (tmp_path / "a.json").write_text(json.dumps([{"image": "0.png", "conversations": turns}]))
    (tmp_path / "b.jsonl").write_text('{"image": "1.png", "caption": "a box"}\n')
    assert read_captions(tmp_path / "a.json") == [{"image": "0.png", "caption": "a cone", "image_id": 0}]
    assert read_captions(tmp_path / "b.jsonl") == [{"image": "1.png", "caption": "a box", "image_id": 0}]
    (tmp_path / "c.json").write_text(json.dumps([{"conversations": turns}]))
    with pytest.raises(UserError, match=r"c.json: record 0 has no `image` with a caption"):
        read_captions(tmp_path / "c.json")


def test_help_is_light():
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tove_lvlm.hosts.lavis", "--help"], capture_output=True, text=True
    )
    assert "evaluate" in done.stdout
    assert " torch\n" not in done.stderr
