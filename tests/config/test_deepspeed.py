"""The DeepSpeed JSON must not bypass the YAML."""

import json

import pytest

from helpers.paths import ROOT
from tove_lvlm.config import ConfigError
from tove_lvlm.config.deepspeed import read_deepspeed
from tove_lvlm.config.llava import TrainConfig

TRAIN = TrainConfig(output_dir="x", per_device_train_batch_size=4, gradient_accumulation_steps=2, max_grad_norm=1.0)
SHIPPED = sorted((ROOT / "projects" / "deepspeed").glob("*.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_files_fit_and_clip(path):
    read = read_deepspeed(path, TRAIN, world_size=8)
    tree = read.settings
    assert tree["gradient_clipping"] == "auto"
    assert read.zero_stage == tree["zero_optimization"]["stage"] == (2 if path.stem == "zero2" else 3)
    assert not {"optimizer", "scheduler"} & tree.keys()


def test_three_are_shipped():
    assert [path.stem for path in SHIPPED] == ["zero2", "zero3", "zero3_offload"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": {"type": "AdamW"}}, ["`optimizer`", "train.mm_projector_lr", "remove"]),
        ({"scheduler": {"type": "WarmupLR"}}, ["`scheduler`", "train.lr_scheduler_type"]),
        ({"train_micro_batch_size_per_gpu": 3}, ["train_micro_batch_size_per_gpu", "is 3", "gives 4"]),
        ({"gradient_accumulation_steps": 1}, ["gradient_accumulation_steps", "is 1", "gives 2"]),
        ({"train_batch_size": 8}, ["train_batch_size", "is 8", "gives 16"]),
        ({"gradient_clipping": 0.5}, ["gradient_clipping", "train.max_grad_norm"]),
        ({"bf16": {"enabled": True}}, ["bf16.enabled", "train.bf16"]),
        ({"fp16": {"enabled": True}}, ["fp16.enabled", "train.bf16"]),
        ({"bf16": True}, ["`bf16` must be an object"]),
        ({"zero_optimization": {"stage": 4}}, ["zero_optimization.stage is 4"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_conflict_names_the_key(tmp_path, change, words):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 2}} | change))
    with pytest.raises(ConfigError) as caught:
        read_deepspeed(path, TRAIN, world_size=2)
    for word in ["train.deepspeed", str(path), *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_equal_numbers_are_no_conflict(tmp_path):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"train_batch_size": 16, "train_micro_batch_size_per_gpu": 4, "gradient_clipping": 1}))
    assert read_deepspeed(path, TRAIN, world_size=2).settings["train_batch_size"] == 16


@pytest.mark.parametrize(
    ("text", "word"), [("{,}", "line 1"), ("[]", "one JSON object"), ("\xff\xfe", "not valid JSON")]
)
def test_what_does_not_parse_is_named(tmp_path, text, word):
    path = tmp_path / "ds.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=word):
        read_deepspeed(path, TRAIN, world_size=1)


def test_clipping_is_switched_on_where_the_file_is_silent(tmp_path):
    path = tmp_path / "ds.json"
    path.write_text("{}")
    assert read_deepspeed(path, TRAIN, 1).settings["gradient_clipping"] == "auto"
