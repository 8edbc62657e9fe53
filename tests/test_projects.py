"""Every file in projects/ is read by the code that it is for."""

from pathlib import Path

import pytest
import torch

from helpers.paths import ROOT
from tove_lvlm import ToVEVisionModel, build_tower, config
from tove_lvlm.config import encoder_decoder
from tove_lvlm.config.deepspeed import read_deepspeed
from tove_lvlm.config.llava import RunConfig
from tove_lvlm.config.merge import MergeRunConfig
from tove_lvlm.tower.build import tower_config_from_yaml
from tove_lvlm.tower.from_yaml import read_tower_yaml

PROJECTS = ROOT / "projects"
RUNS = sorted([*PROJECTS.glob("*/pretrain.yaml"), *PROJECTS.glob("*/finetune.yaml")])
BASE_RUNS = sorted([*PROJECTS.glob("tove_base/*.yaml"), PROJECTS / "miniature" / "pretrain_base.yaml"])
MERGES = sorted(PROJECTS.glob("*/merge.yaml"))
NETWORKS = ROOT / "outputs" / "real_small" / "source" / "networks"  # scripts/fetch_real_small.py brings it
TOWERS = sorted([*PROJECTS.glob("towers/*.yaml"), *PROJECTS.glob("*/*tower.yaml")])
WITHOUT_FILES = pytest.mark.skipif(not NETWORKS.is_dir(), reason=f"no {NETWORKS}")
READABLE = [pytest.param(path, marks=WITHOUT_FILES if path.parent.name == "real_small" else ()) for path in TOWERS]
SMALL = [PROJECTS / "towers" / f"{name}_base.yaml" for name in ("clip_b16", "siglip2_b16")]
LAVIS = sorted(PROJECTS.glob("lavis/*.yaml"))  # LAVIS's own format: tests/hosts/lavis/test_run.py runs them


def name(path: Path) -> str:
    return str(path.relative_to(PROJECTS))


def test_nothing_is_left_out():
    assert {*RUNS, *BASE_RUNS, *MERGES, *TOWERS, *LAVIS} == set(PROJECTS.rglob("*.yaml"))
    assert len(RUNS) >= 6
    assert len(BASE_RUNS) >= 4
    assert len(MERGES) >= 2
    assert len(TOWERS) >= 2


@pytest.mark.parametrize("path", RUNS, ids=name)
def test_run_fits_the_schema_and_its_deepspeed_json(path):
    run = config.load(RunConfig, path)
    deepspeed = PROJECTS.parent / run.train.deepspeed
    assert deepspeed.is_file()
    settings = read_deepspeed(str(deepspeed), run.train, world_size=8).settings
    # An optimizer or scheduler block would bypass our learning-rate groups (docs/design.md, "Training").
    assert not {"optimizer", "scheduler"} & set(settings)
    tower = path.parent / run.model.tower if run.model.tower.startswith(".") else PROJECTS.parent / run.model.tower
    assert tower in TOWERS or tower.resolve() in TOWERS


@pytest.mark.parametrize("path", BASE_RUNS, ids=name)
def test_base_run_fits_the_schema_and_its_deepspeed_json(path):
    run = config.load(encoder_decoder.RunConfig, path)
    read_deepspeed(str(PROJECTS.parent / run.train.deepspeed), run.train, world_size=8)
    if run.model.tower is not None:
        tower = path.parent / run.model.tower if run.model.tower.startswith(".") else PROJECTS.parent / run.model.tower
        assert tower.resolve() in TOWERS
        return
    outputs = [config.load(encoder_decoder.RunConfig, other).train.output_dir for other in BASE_RUNS]
    assert run.model.pretrained in outputs


@pytest.mark.parametrize("path", MERGES, ids=name)
def test_merge_fits_the_schema_and_goes_on_from_stage_two(path):
    run = config.load(MergeRunConfig, path)
    read_deepspeed(str(PROJECTS.parent / run.train.deepspeed), run.train, world_size=8)
    assert run.model.checkpoint == config.load(RunConfig, path.parent / "finetune.yaml").train.output_dir


@pytest.mark.parametrize("path", READABLE, ids=name)
def test_tower_is_read(path):
    tower = read_tower_yaml(path)
    assert tower.experts
    assert all(expert.pretrained or not expert.has_weights for expert in tower.experts)


@pytest.mark.parametrize("path", READABLE, ids=name)
def test_tower_is_built_and_run_without_weights(path):
    """On the meta device: every layer meets every other, at full size, for nothing."""
    tower_config = tower_config_from_yaml(path)
    size, width = tower_config.image_size, tower_config.hidden_size
    with torch.device("meta"):
        tower = ToVEVisionModel(tower_config).eval()
        output = tower(torch.zeros(2, 3, size, size))
    assert output.last_hidden_state.shape == (2, tower_config.num_tokens, width)
    assert output.gate_probs.shape == (2, tower_config.num_tokens, len(tower.expert_names))
    assert {parameter.device.type for parameter in tower.parameters()} == {"meta"}


@pytest.mark.parametrize("path", SMALL, ids=name)
def test_small_towers_are_built_and_run_for_real(path):
    """With random weights: none of a hub's are here."""
    experts = len(read_tower_yaml(path).experts)
    base = "clip" if path.name.startswith("clip") else "base"
    random = [f"{base}.pretrained=none", *(f"experts.{k}.pretrained=none" for k in range(experts))]
    tower = build_tower(path, random)
    pixels_B3HW = torch.randn(1, 3, tower.config.image_size, tower.config.image_size)
    with torch.no_grad():
        output = tower(pixels_B3HW)
    assert output.last_hidden_state.isfinite().all()
    assert torch.equal(output.last_hidden_state, output.hidden_states[0])  # zero start: CLIP, bit for bit
    torch.testing.assert_close(output.gate_probs.sum(-1), torch.ones(1, tower.config.num_tokens))


@pytest.mark.parametrize("size", ["7b", "13b"])
def test_full_size_runs_have_llava_15s_schedule(size):
    pretrain, finetune = (
        config.load(RunConfig, PROJECTS / f"tove_vicuna_{size}/{s}.yaml") for s in ("pretrain", "finetune")
    )
    stage1, stage2 = pretrain.train, finetune.train
    assert (stage1.learning_rate, stage1.per_device_train_batch_size * 8) == (1e-3, 256)
    assert (stage2.learning_rate, stage2.mm_projector_lr, stage2.per_device_train_batch_size * 8) == (2e-4, 2e-5, 128)
    assert (finetune.lora.lora_r, finetune.lora.lora_alpha, finetune.lora.lora_dropout) == (128, 256, 0.05)
    assert (pretrain.data.image_aspect_ratio, finetune.data.image_aspect_ratio) == ("square", "pad")
    assert stage2.group_by_modality_length
    assert not stage1.group_by_modality_length
    for train in (stage1, stage2):
        assert (train.num_train_epochs, train.weight_decay, train.warmup_ratio) == (1, 0, 0.03)
        assert (train.model_max_length, train.lr_scheduler_type) == (2048, "cosine")
        assert train.bf16
        assert train.gradient_checkpointing
    # At 7B LoRA's weights fit whole on a GPU; ZeRO-3 would gather them twice in every step.
    expected = ("zero2", "zero2" if size == "7b" else "zero3")
    assert (Path(stage1.deepspeed).stem, Path(stage2.deepspeed).stem) == expected
