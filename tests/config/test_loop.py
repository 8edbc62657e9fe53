"""The `train` block's keys that depend on its DeepSpeed JSON."""

import json

import pytest

from tove_lvlm.config import ConfigError, encoder_decoder, merge
from tove_lvlm.config.llava import TrainConfig
from tove_lvlm.config.loop import LoopConfig, resolve_loop

KEYS = ("expert_channels_last", "expert_compile", "expert_streams")


def resolved(folder, stage: int, **keys) -> TrainConfig:
    (folder / "zero.json").write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    return resolve_loop(TrainConfig(output_dir=str(folder / "out"), deepspeed="./zero.json", **keys), folder)


@pytest.mark.parametrize("key", KEYS)
def test_how_experts_run_is_refused_with_zero3_by_key(tmp_path, key):
    assert getattr(resolved(tmp_path, 2, **{key: True}), key)
    with pytest.raises(ConfigError, match=rf"^`train.{key}` does not go with ZeRO-3, which .*, or use ZeRO-2$"):
        resolved(tmp_path, 3, **{key: True})


def test_all_are_off_where_nothing_is_said(tmp_path):
    train = resolved(tmp_path, 3)
    assert not any(getattr(train, key) for key in KEYS)


def panels(folder, **keys) -> TrainConfig:
    keys = {"report_to": "tensorboard", "gate_panels_steps": 5} | keys
    return resolve_loop(TrainConfig(output_dir=str(folder / "out"), **keys), folder)


def test_pictures_of_the_gate_are_files_with_absolute_paths(tmp_path):
    (tmp_path / "a.png").touch()
    train = panels(tmp_path, gate_panels_images=["./a.png"])
    assert (train.gate_panels_steps, train.gate_panels_images) == (5, [str(tmp_path / "a.png")])
    with pytest.raises(ConfigError, match="^`train.gate_panels_images`: .*absent.png"):
        panels(tmp_path, gate_panels_images=["./absent.png"])


def test_where_no_panels_can_be_drawn(tmp_path):
    for report_to in ("none", "wandb"):
        with pytest.raises(ConfigError, match=rf"and `train.report_to` is {report_to}; give train.report_to=tensorboa"):
            panels(tmp_path, report_to=report_to)
        assert panels(tmp_path, report_to=report_to, gate_panels_steps=0)
    with pytest.raises(ConfigError, match="`train.gate_panels_steps` does not go with `train.fsdp`"):
        panels(tmp_path, fsdp=True)
    (tmp_path / "zero.json").write_text(json.dumps({"zero_optimization": {"stage": 3}}))
    with pytest.raises(ConfigError, match="^`train.gate_panels_steps` does not go with ZeRO-3, .*, or use ZeRO-2$"):
        panels(tmp_path, deepspeed="./zero.json")


def test_merging_has_no_gate_that_learns():
    blocks = {"model": merge.MergeModelConfig(checkpoint=".", student="."), "data": merge.MergeDataConfig(images=["."])}
    train = LoopConfig(output_dir="out", report_to="tensorboard", gate_panels_steps=5)
    with pytest.raises(ConfigError, match="^`train.gate_panels_steps` draws the gate as it learns"):
        merge.MergeRunConfig(**blocks, train=train)


@pytest.mark.parametrize(
    "config",
    [
        lambda train: encoder_decoder.RunConfig(
            model=encoder_decoder.EncoderDecoderConfig(pretrained="."),
            data=encoder_decoder.DataConfig(mix=[encoder_decoder.SourceConfig(task="caption", files=["a.json"])]),
            train=encoder_decoder.TrainConfig(**train),
        ),
        lambda train: merge.MergeRunConfig(
            model=merge.MergeModelConfig(checkpoint=".", student="."),
            data=merge.MergeDataConfig(images=["."]),
            train=LoopConfig(**train),
        ),
    ],
)
def test_fsdp_is_refused_where_no_language_model_is_divided(config):
    assert config({"output_dir": "out"})
    with pytest.raises(ConfigError, match=r"^`train.fsdp` divides the language model of LLaVA's two stages"):
        config({"output_dir": "out", "fsdp": True})
