"""How experts run is a setting of every stage; the losses do not change, and what cannot be is one line."""

import pytest

from helpers import llava_runs, merge_runs
from helpers.paths import ROOT
from helpers.training import losses
from tove_lvlm import ToVEVisionModel
from tove_lvlm.experts import ExpertHub
from tove_lvlm.recipes import expert_speed
from tove_lvlm.train.compiler import compiler_problem

pytestmark = pytest.mark.usefixtures("one_rank")
ON = "train.expert_channels_last=true"


@pytest.fixture
def laid_out(monkeypatch) -> list[list[str]]:
    """Of each run of a hub, the experts whose weights have their channels last."""
    inner, seen = ExpertHub.forward, []

    def forward(hub, *args, **kwargs):
        grids = inner(hub, *args, **kwargs)
        seen.append([name for name, expert in hub.items() if expert.channels_last])
        return grids

    monkeypatch.setattr(ExpertHub, "forward", forward)
    return seen


@pytest.fixture
def compiled(monkeypatch) -> list[list[str]]:
    """The experts of each tower that is compiled, which it is not."""
    seen: list[list[str]] = []
    monkeypatch.setattr(ToVEVisionModel, "compile_experts", lambda tower: seen.append(tower.attached_names))
    monkeypatch.setattr(expert_speed, "compiler_problem", lambda device: None)
    return seen


@pytest.mark.parametrize("stage", [pytest.param("pretrain", marks=pytest.mark.full), "finetune"])
def test_in_llavas_stages(train, world, laid_out, compiled, capfd, stage):
    assert train(stage, "train.max_steps=3", f"train.output_dir={world}/plain") == 0
    assert not any(laid_out)
    assert not compiled
    laid_out.clear()
    assert train(stage, "train.max_steps=3", ON, "train.expert_compile=true") == 0
    assert laid_out
    assert all(names == ["cnn"] for names in laid_out)
    assert compiled == [["depth", "normals", "shapes", "cnn"]]
    assert losses(world / f"out-{stage}") == pytest.approx(losses(world / "plain"), rel=1e-5)
    assert "train.expert_channels_last: cnn" in capfd.readouterr().err


def test_in_the_base_model_and_merging(train_base, base_world, checkpoints, laid_out, compiled):
    assert train_base("pretrain_base", "train.max_steps=2", ON, "train.expert_compile=true") == 0
    path = merge_runs.write_yaml(base_world, checkpoints["tower"], base_world / "data" / "images", max_steps=2)
    assert merge_runs.run(path, ON, "train.expert_compile=true") == 0
    assert all(names == ["cnn"] for names in laid_out)
    assert len(compiled) == 2


def test_with_the_cache(train, world, laid_out):
    """What is kept is kept for both: a key of the cache does not know of the order of sums."""
    cache = ("train.expert_cache_dtype=float32", f"train.expert_cache={world}/cache", "train.max_steps=2")
    assert train("pretrain", *cache, ON) == 0
    assert laid_out
    laid_out.clear()
    assert train("pretrain", *cache, f"train.output_dir={world}/again") == 0
    assert not laid_out


@pytest.mark.full
def test_a_run_may_go_on_otherwise(train, world, laid_out):
    assert train("pretrain", "train.max_steps=2") == 0
    assert train("pretrain", "train.max_steps=3", ON) == 0
    assert laid_out[-1] == ["cnn"]


@pytest.mark.full
def test_under_deepspeed(world):
    """Its start reads weights as bytes in their order, before the first forward pass."""
    options = ["train.max_steps=2", f"train.deepspeed={ROOT}/projects/deepspeed/zero2.json"]
    for name, more in {"plain": [], "last": [ON]}.items():
        code, said = llava_runs.run(world, "pretrain", [*options, *more, f"train.output_dir={world}/{name}"], 2)
        assert code == 0, said[-2000:]
    assert losses(world / "last") == pytest.approx(losses(world / "plain"), rel=1e-5)


@pytest.mark.full
def test_compiled_for_real(train, world):
    problem = compiler_problem(expert_speed.torch.device("cpu"))
    if problem:
        pytest.skip(problem)
    assert train("pretrain", "train.max_steps=2", f"train.output_dir={world}/plain") == 0
    assert train("pretrain", "train.max_steps=2", "train.expert_compile=true") == 0
    assert losses(world / "out-pretrain") == pytest.approx(losses(world / "plain"), rel=1e-4)


def test_a_plain_clip_has_no_experts_and_says_so(train, capfd):
    assert train("pretrain", "model.vision_tower=clip", "train.max_steps=1", ON, "train.expert_streams=true") == 0
    said = capfd.readouterr().err
    assert "train.expert_channels_last, expert_streams: not used, a plain CLIP is the vision tower" in said


def test_what_this_machine_cannot_do_is_one_line(train, world, monkeypatch, capfd):
    monkeypatch.setattr(expert_speed.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(expert_speed, "compiler_problem", lambda device: f"no compiler for {device}")
    for key, message in {
        "expert_streams": "needs a CUDA device; this run is on `cpu`, leave it out",
        "expert_compile": "torch.compile cannot be used here, no compiler for cpu; leave it out",
    }.items():
        assert train("pretrain", f"train.{key}=true") == 2
        told = capfd.readouterr().err.splitlines()[-1]
        assert f"`train.{key}`" in told
        assert message in told
    assert not (world / "out-pretrain" / "run.yaml").exists()
